package org.edvit.agent

private const val LONGEST_QUOTE = 80
private const val PRINTABLE_FIRST = ' '
private const val PRINTABLE_LAST = '~'

/** A foreign value, short enough for a sentence and with nothing in it that a terminal would obey. */
fun quote(value: Any?): String {
    val text = if (value is String) "'${ascii(value)}'" else ascii(value.toString())
    return if (text.length <= LONGEST_QUOTE) text else text.take(LONGEST_QUOTE - 3) + "..."
}

private fun ascii(text: String): String =
    buildString {
        for (character in text) {
            when {
                character == '\\' || character == '\'' -> append('\\').append(character)
                character in PRINTABLE_FIRST..PRINTABLE_LAST -> append(character)
                else -> append("\\u%04x".format(character.code))
            }
        }
    }

/** Bytes as lower-case hex. */
fun hex(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }

/** Lower-case hex as bytes; null when it is none. */
fun unhex(text: String): ByteArray? {
    if (text.length % 2 != 0 || text.any { it !in '0'..'9' && it !in 'a'..'f' }) return null
    return ByteArray(text.length / 2) { text.substring(2 * it, 2 * it + 2).toInt(radix = 16).toByte() }
}
