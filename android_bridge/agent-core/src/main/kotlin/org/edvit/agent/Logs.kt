package org.edvit.agent

import java.time.Instant
import java.time.ZoneId
import java.time.format.DateTimeFormatter
import java.util.logging.ConsoleHandler
import java.util.logging.Formatter
import java.util.logging.Handler
import java.util.logging.Level
import java.util.logging.LogRecord
import java.util.logging.Logger

/** What may be told to a stranger of a line of the log: no token, no pairing code, no key. */
object Redaction {
    private const val HIDDEN = "(secret)"
    private val SECRETS =
        listOf(
            Regex("edvit1-[A-Za-z0-9_-]+"),
            Regex("code=[0-9A-Za-z-]+"),
            Regex("\\b[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}\\b"),
            Regex("-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", RegexOption.DOT_MATCHES_ALL),
        )

    /** The same text without secrets. */
    fun of(text: String): String = SECRETS.fold(text) { rest, secret -> secret.replace(rest, HIDDEN) }
}

/** Lines on standard error: the time, then the message; of an exception its trace, too. All of it redacted. */
object Logs {
    private val TIME = DateTimeFormatter.ofPattern("HH:mm:ss").withZone(ZoneId.systemDefault())

    // java.util.logging keeps these weakly.
    private val noisy = listOf("io.grpc", "javax.jmdns").map(Logger::getLogger)

    /** Write what the agent logs to `screen` (else standard error) and into the journal, and of libraries only what went wrong. */
    fun begin(
        journal: Journal,
        screen: Handler = ConsoleHandler(),
    ) {
        val root = Logger.getLogger("")
        root.handlers.forEach(root::removeHandler)
        root.addHandler(screen.apply { formatter = Line })
        root.addHandler(journal)
        noisy.forEach { it.level = Level.SEVERE }
    }

    internal object Line : Formatter() {
        override fun format(record: LogRecord): String {
            val trace = record.thrown?.let { "\n${it.stackTraceToString().trimEnd()}" }.orEmpty()
            return Redaction.of("${TIME.format(Instant.ofEpochMilli(record.millis))} ${formatMessage(record)}$trace\n")
        }
    }
}
