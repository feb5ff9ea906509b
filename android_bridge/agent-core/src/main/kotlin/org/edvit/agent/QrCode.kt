package org.edvit.agent

import com.google.zxing.BarcodeFormat
import com.google.zxing.EncodeHintType
import com.google.zxing.qrcode.QRCodeWriter
import com.google.zxing.qrcode.decoder.ErrorCorrectionLevel

/** A QR code that a terminal can show, two rows of it in a line. */
fun qrCode(text: String): String {
    val hints = mapOf(EncodeHintType.ERROR_CORRECTION to ErrorCorrectionLevel.L, EncodeHintType.MARGIN to 2)
    val matrix = QRCodeWriter().encode(text, BarcodeFormat.QR_CODE, 0, 0, hints)
    // Light modules are drawn, for most terminals are dark.
    val light = { x: Int, y: Int -> y < matrix.height && !matrix[x, y] }
    return (0 until matrix.height step 2).joinToString("\n") { y ->
        (0 until matrix.width).joinToString("") { x ->
            when {
                light(x, y) && light(x, y + 1) -> "█"
                light(x, y) -> "▀"
                light(x, y + 1) -> "▄"
                else -> " "
            }
        }
    }
}
