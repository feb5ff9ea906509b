package org.edvit.agent

import com.google.gson.Gson
import java.time.Instant
import java.util.concurrent.locks.ReentrantLock
import java.util.logging.Handler
import java.util.logging.Level
import java.util.logging.LogRecord
import kotlin.concurrent.withLock

/**
 * The device's own log, as much of it as fits into a little memory, for whoever owns the fleet.
 *
 * Lines are JSON as the Python device gives them (`time`, `level`, `logger`, `message`), without secrets.
 */
class Journal(
    private val most: Int = MOST_LINES,
) : Handler() {
    private val lines = ArrayDeque<String>()
    private var written = 0L
    private val lock = ReentrantLock()
    private val more = lock.newCondition()

    override fun publish(record: LogRecord) {
        val time = Instant.ofEpochMilli(record.millis).toString()
        val fields = mapOf("time" to time, "level" to level(record.level), "logger" to record.loggerName)
        val message = Redaction.of(record.message + record.thrown?.let { "\n${it.stackTraceToString()}" }.orEmpty())
        val line = Gson().toJson(fields + ("message" to message.take(LONGEST_MESSAGE)))
        lock.withLock {
            if (lines.size == most) lines.removeFirst()
            lines.addLast(line)
            written += 1
            more.signalAll()
        }
    }

    /**
     * Say the last lines, oldest first, and with `follow` those that come, until `say` returns false.
     *
     * Once a second `say` is asked with null whether anybody still listens. Who takes lines too slowly misses some.
     */
    fun read(
        last: Int,
        follow: Boolean,
        say: (String?) -> Boolean,
    ) {
        var (seen, kept) = lock.withLock { written to lines.takeLast(last.coerceAtLeast(0)) }
        while (kept.all(say) && follow && say(null)) {
            lock.withLock {
                if (written == seen) more.awaitNanos(SECOND)
                kept = lines.takeLast((written - seen).coerceAtMost(most.toLong()).toInt())
                seen = written
            }
        }
    }

    override fun flush() = Unit

    override fun close() = Unit

    private fun level(level: Level): String =
        when {
            level.intValue() >= Level.SEVERE.intValue() -> "error"
            level.intValue() >= Level.WARNING.intValue() -> "warning"
            else -> "info"
        }

    private companion object {
        const val MOST_LINES = 1000
        const val LONGEST_MESSAGE = 3000
        const val SECOND = 1_000_000_000L
    }
}
