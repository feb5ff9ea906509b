package org.edvit.agent.trust

import org.bouncycastle.crypto.generators.SCrypt
import org.edvit.agent.EdvitError
import org.edvit.agent.hex
import java.nio.ByteBuffer
import java.security.SecureRandom
import java.util.Base64
import javax.crypto.Mac
import javax.crypto.spec.SecretKeySpec

/** A join token: `id` names it, `secret` (16 bytes) proves it, `fingerprint` is the authority's. */
class Token(
    val id: String,
    val secret: ByteArray,
    val fingerprint: ByteArray,
)

/**
 * What makes a stranger a member: a code or a token that both sides know, and proofs that they do.
 *
 * `edvit_tf/rpc/pairing.py` and decision 0021 have the reasons; `tests/vectors/pairing.json` pins every byte.
 */
object Pairing {
    /** Bytes of each side's random number. */
    const val NONCE_BYTES = 32

    /** After so many wrong codes nobody is listened to any more. */
    const val WRONG_CODES = 10

    // Crockford's base 32: no I, L, O or U.
    private const val ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    private const val CODE_LENGTH = 12
    private const val GROUP = 4
    private val LOOKALIKES = mapOf('O' to '0', 'I' to '1', 'L' to '1')
    private val TOKEN = Regex("edvit1-([A-Za-z0-9_-]{72})")
    private const val TOKEN_ID_BYTES = 6
    private const val SECRET_BYTES = 16

    // RFC 7914: 16 MiB of memory a guess.
    private const val COST = 1 shl 14
    private const val BLOCK = 8
    private const val KEY_BYTES = 32
    private val random = SecureRandom()

    /** Random bytes that nobody can guess. */
    fun randomBytes(size: Int): ByteArray = ByteArray(size).also(random::nextBytes)

    /** Draw a pairing code, "ABCD-EFGH-JKMN". */
    fun newCode(): String =
        (1..CODE_LENGTH)
            .map { ALPHABET[random.nextInt(ALPHABET.length)] }
            .chunked(GROUP) { it.joinToString("") }
            .joinToString("-")

    /**
     * The secret in a code as a person types it: case, spaces and hyphens do not count, nor O for 0.
     *
     * @throws EdvitError `trust.code`: it is no pairing code.
     */
    fun readCode(text: String): ByteArray {
        val letters =
            text
                .uppercase()
                .filterNot { it.isWhitespace() || it == '-' }
                .map { LOOKALIKES[it] ?: it }
                .joinToString("")
        if (letters.length != CODE_LENGTH || letters.any { it !in ALPHABET }) {
            throw EdvitError("a pairing code is twelve letters and digits, like 7K2M-Q4ZD-9HXA, as the device shows it", "trust.code")
        }
        return letters.toByteArray()
    }

    /**
     * Read a token from its word.
     *
     * @throws EdvitError `trust.token`: it is none.
     */
    fun readToken(text: String): Token {
        val match =
            TOKEN.matchEntire(text.trim())
                ?: throw EdvitError("a join token is one word that begins with edvit1-, as `edvit-tf fleet token` prints it", "trust.token")
        val packed = Base64.getUrlDecoder().decode(match.groupValues[1])
        val head = TOKEN_ID_BYTES + SECRET_BYTES
        return Token(hex(packed.copyOf(TOKEN_ID_BYTES)), packed.copyOfRange(TOKEN_ID_BYTES, head), packed.copyOfRange(head, packed.size))
    }

    /** The key (32 bytes) that a code or token gives with one device: scrypt (RFC 7914), N 2^14, r 8, p 1. */
    fun stretch(
        secret: ByteArray,
        deviceId: String,
    ): ByteArray = SCrypt.generate(secret, "edvit-tf pairing 1 $deviceId".toByteArray(), COST, BLOCK, 1, KEY_BYTES)

    /** HMAC-SHA256 (32 bytes) by `who` ("aggregator" or "device") over what was said, as it was sent. */
    fun proof(
        key: ByteArray,
        who: String,
        offer: ByteArray,
        challenge: ByteArray,
    ): ByteArray {
        val mac = Mac.getInstance("HmacSHA256").apply { init(SecretKeySpec(key, "HmacSHA256")) }
        for (part in listOf(who.toByteArray(), offer, challenge)) {
            mac.update(ByteBuffer.allocate(Int.SIZE_BYTES).putInt(part.size).array())
            mac.update(part)
        }
        return mac.doFinal()
    }
}
