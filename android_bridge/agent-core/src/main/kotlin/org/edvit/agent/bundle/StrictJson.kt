package org.edvit.agent.bundle

import com.google.gson.Strictness
import com.google.gson.stream.JsonReader
import com.google.gson.stream.JsonToken
import org.edvit.agent.quote
import java.io.IOException
import java.io.StringReader
import java.math.BigInteger
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/**
 * JSON from a stranger: bounded in size and depth, no key twice, no number that is not one.
 *
 * A document is made of `Map<String, Any?>`, `List<Any?>`, `String`, `Boolean`, `BigInteger`, `Double` and null.
 */
object StrictJson {
    private const val LARGEST_BYTES = 4 * 1024 * 1024
    private const val LARGEST_DEPTH = 32

    // Python reads no whole number with more digits either.
    private const val MOST_DIGITS = 4300
    private const val BYTE_ORDER_MARK = '\uFEFF'

    /**
     * What the bytes of a `manifest.json` hold.
     *
     * @throws org.edvit.agent.EdvitError `bundle.limit` (too large or too deep) or `bundle.json`.
     */
    fun load(data: ByteArray): Any? {
        if (data.size > LARGEST_BYTES) {
            throw refused("limit", "manifest.json has ${data.size} bytes and at most $LARGEST_BYTES are read")
        }
        try {
            val text =
                Charsets.UTF_8
                    .newDecoder()
                    .decode(ByteBuffer.wrap(data))
                    .toString()
            // Gson would pass over it.
            if (text.startsWith(BYTE_ORDER_MARK)) throw invalid("it begins with a byte order mark")
            val reader = JsonReader(StringReader(text))
            reader.strictness = Strictness.STRICT
            val document = value(reader, 0)
            if (reader.peek() != JsonToken.END_DOCUMENT) throw invalid("something follows it")
            return document
        } catch (error: CharacterCodingException) {
            throw invalid("it is not UTF-8", error)
        } catch (error: IOException) {
            throw invalid(error.message ?: "it ends early", error)
        } catch (error: IllegalStateException) {
            throw invalid(error.message ?: "it ends early", error)
        }
    }

    private fun value(
        reader: JsonReader,
        depth: Int,
    ): Any? =
        when (reader.peek()) {
            JsonToken.BEGIN_OBJECT -> members(reader, deeper(depth))
            JsonToken.BEGIN_ARRAY -> elements(reader, deeper(depth))
            JsonToken.STRING -> whole(reader.nextString())
            JsonToken.NUMBER -> number(reader.nextString())
            JsonToken.BOOLEAN -> reader.nextBoolean()
            JsonToken.NULL -> reader.nextNull().let { null }
            else -> throw invalid("a value is missing")
        }

    private fun members(
        reader: JsonReader,
        depth: Int,
    ): Map<String, Any?> {
        val members = LinkedHashMap<String, Any?>()
        reader.beginObject()
        while (reader.hasNext()) {
            val key = whole(reader.nextName())
            if (key in members) throw invalid("the key ${quote(key)} appears twice in one object")
            members[key] = value(reader, depth)
        }
        reader.endObject()
        return members
    }

    private fun elements(
        reader: JsonReader,
        depth: Int,
    ): List<Any?> {
        val elements = ArrayList<Any?>()
        reader.beginArray()
        while (reader.hasNext()) elements += value(reader, depth)
        reader.endArray()
        return elements
    }

    private fun deeper(depth: Int): Int {
        if (depth >= LARGEST_DEPTH) {
            throw refused("limit", "manifest.json is nested more than $LARGEST_DEPTH deep")
        }
        return depth + 1
    }

    private fun number(text: String): Number {
        if (text.any { it == '.' || it == 'e' || it == 'E' }) {
            val number = text.toDouble()
            if (number.isInfinite()) throw invalid("the number ${quote(text.take(40))} is too large")
            return number
        }
        if (text.length > MOST_DIGITS) throw invalid("a number has more than $MOST_DIGITS digits")
        return BigInteger(text)
    }

    /** Half a surrogate pair is legal JSON, but no text that could be written again. */
    private fun whole(text: String): String {
        if (!Charsets.UTF_8.newEncoder().canEncode(text)) throw invalid("a text holds half a character")
        return text
    }

    private fun invalid(
        problem: String,
        cause: Exception? = null,
    ) = refused("json", "manifest.json is not valid JSON (${quote(problem)})", cause = cause)
}
