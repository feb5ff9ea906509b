package org.edvit.agent.bundle

import java.math.BigInteger
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** `image` uint8 [height, width, channels], and the `feature` and `logits` (float32) that one variant gave where it was made. */
class TestVector(
    val image: ByteArray,
    val feature: FloatArray,
    val logits: FloatArray,
) {
    companion object {
        private const val LARGEST_BYTES = 64 * 1024 * 1024
        private const val LARGEST_HEADER_BYTES = 1024 * 1024
        private const val LENGTH_BYTES = 8
        private val KINDS = mapOf("image" to ("U8" to 3), "feature" to ("F32" to 1), "logits" to ("F32" to 1))

        /**
         * Read a test vector from the bytes of its safetensors file.
         *
         * @throws org.edvit.agent.EdvitError `bundle.vector`: other arrays than those above, or numbers that are not finite.
         */
        fun read(data: ByteArray): TestVector {
            if (data.size !in LENGTH_BYTES..LARGEST_BYTES) throw wrong("has ${data.size} bytes")
            val size = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).long
            if (size !in 2..minOf(LARGEST_HEADER_BYTES, data.size - LENGTH_BYTES)) throw wrong("is no safetensors file")
            val body = LENGTH_BYTES + size.toInt()
            val header = StrictJson.load(data.copyOfRange(LENGTH_BYTES, body)) as? Map<*, *> ?: throw wrong("has no header")
            val tensors = header - "__metadata__"
            if (tensors.keys != KINDS.keys) throw wrong("holds other arrays than ${KINDS.keys.joinToString()}")
            val arrays = tensors.entries.associate { (name, entry) -> name to array(data, body, "$name", entry as? Map<*, *>) }
            return TestVector(arrays.getValue("image"), floats(arrays.getValue("feature")), floats(arrays.getValue("logits")))
        }

        private fun array(
            data: ByteArray,
            body: Int,
            name: String,
            entry: Map<*, *>?,
        ): ByteArray {
            val (kind, rank) = KINDS.getValue(name)
            val shape = numbers(entry?.get("shape"))
            val place = numbers(entry?.get("data_offsets"))
            val fits = entry?.get("dtype") == kind && shape?.size == rank && place?.size == 2
            if (!fits || shape == null || place == null) throw wrong("holds $name in another shape or type")
            val width = if (kind == "F32") Float.SIZE_BYTES else 1
            val bytes = shape.fold(width.toLong()) { product, side -> if (product > LARGEST_BYTES) product else product * side }
            val (begin, end) = place
            if (bytes == 0L || begin < 0 || end - begin != bytes || body + end > data.size) throw wrong("holds $name cut short")
            return data.copyOfRange(body + begin.toInt(), body + end.toInt())
        }

        private fun numbers(list: Any?): List<Long>? =
            (list as? List<*>)
                ?.map {
                    (it as? BigInteger)?.takeIf { number -> number.signum() >= 0 && number.bitLength() < Int.SIZE_BITS }?.toLong()
                        ?: return null
                }

        private fun floats(bytes: ByteArray): FloatArray {
            val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
            val floats = FloatArray(buffer.remaining()).also(buffer::get)
            if (floats.any { !it.isFinite() }) throw wrong("holds numbers that are not finite")
            return floats
        }

        private fun wrong(problem: String) = refused("vector", "The test vector $problem", "make the bundle again with edvit-tf export")
    }
}
