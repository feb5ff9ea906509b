package org.edvit.phone

import com.google.zxing.BarcodeFormat
import com.google.zxing.BinaryBitmap
import com.google.zxing.DecodeHintType
import com.google.zxing.PlanarYUVLuminanceSource
import com.google.zxing.ReaderException
import com.google.zxing.common.HybridBinarizer
import com.google.zxing.qrcode.QRCodeReader
import org.edvit.agent.EdvitError
import org.edvit.agent.trust.Pairing

/** What a scan found. */
sealed interface Scanned {
    /** A join token, as the word that it is. */
    data class Join(
        val word: String,
    ) : Scanned

    /** Something else: what to tell whoever holds the phone. */
    data class Other(
        val sentence: String,
    ) : Scanned
}

/** QR codes in a camera's pictures. */
object QrCodes {
    private val HINTS = mapOf(DecodeHintType.TRY_HARDER to true, DecodeHintType.POSSIBLE_FORMATS to listOf(BarcodeFormat.QR_CODE))

    /** The text of the QR code in a picture, or null; `luma` is its brightness, uint8, rows of `stride` bytes, `width` × `height` used. */
    fun find(
        luma: ByteArray,
        stride: Int,
        width: Int,
        height: Int,
    ): String? =
        try {
            // The last row of a camera's plane may be shorter than its stride.
            val whole = if (luma.size < stride * height) luma.copyOf(stride * height) else luma
            val source = PlanarYUVLuminanceSource(whole, stride, height, 0, 0, width, height, false)
            QRCodeReader().decode(BinaryBitmap(HybridBinarizer(source)), HINTS).text
        } catch (_: ReaderException) {
            null
        }

    /** What a code means here. */
    fun read(text: String): Scanned =
        try {
            Pairing.readToken(text)
            Scanned.Join(text.trim())
        } catch (_: EdvitError) {
            val what = if (text.startsWith("edvit:pair")) "This is another device's pairing code" else "This is no join token"
            Scanned.Other("$what: run `edvit-tf fleet token --qr` on the aggregator, and scan what it shows.")
        }
}
