package org.edvit.phone

import android.app.Application
import android.content.Context
import android.util.Log
import org.edvit.agent.Journal
import org.edvit.agent.Logs
import org.edvit.agent.engine.Runtime
import java.util.logging.Handler
import java.util.logging.Level
import java.util.logging.LogRecord

/** The app: what all of its processes share. Its Gradle project says which interpreter it ships. */
abstract class PhoneApplication : Application() {
    /** The device's log. */
    val journal = Journal()

    /** The app's own version. */
    abstract val software: String

    /** The interpreter that this app ships, as the phone's owner has chosen it. */
    abstract fun runtime(choices: Choices): Runtime

    /** What outlives the app's process. */
    val values: Values by lazy { Preferences(this) }

    override fun onCreate() {
        super.onCreate()
        Logs.begin(journal, Logcat())
    }
}

/** The app's preferences. */
private class Preferences(
    context: Context,
) : Values {
    private val file = context.getSharedPreferences("device", Context.MODE_PRIVATE)

    override fun get(name: String): String? = file.getString(name, null)

    override fun set(
        name: String,
        value: String?,
    ) {
        // At once: Android may end the process in the next moment.
        file.edit().putString(name, value).commit()
    }
}

/** Android's own log, which `adb logcat -s edvit` shows; without secrets, for its formatter takes them out. */
private class Logcat : Handler() {
    override fun publish(record: LogRecord) {
        val priority =
            when {
                record.level.intValue() >= Level.SEVERE.intValue() -> Log.ERROR
                record.level.intValue() >= Level.WARNING.intValue() -> Log.WARN
                else -> Log.INFO
            }
        Log.println(priority, "edvit", formatter.format(record).trimEnd())
    }

    override fun flush() = Unit

    override fun close() = Unit
}
