package org.edvit.agent

import java.io.InputStream
import java.security.MessageDigest

private const val PIECE_BYTES = 1 shl 16

/** A SHA-256 that is still being fed. */
fun sha256(): MessageDigest = MessageDigest.getInstance("SHA-256")

/** The SHA-256 (32 bytes) of some bytes. */
fun sha256(data: ByteArray): ByteArray = sha256().digest(data)

/** Feed everything that a stream holds. */
fun MessageDigest.updateFrom(stream: InputStream) {
    val piece = ByteArray(PIECE_BYTES)
    while (true) {
        val count = stream.read(piece)
        if (count < 0) return
        update(piece, 0, count)
    }
}
