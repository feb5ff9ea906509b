package org.edvit.agent.policy

import java.util.logging.Logger

/** Looks at a machine's conditions at most once in a while, however often it is asked, and logs when the answer changes. */
class PowerWatch(
    private val policy: RunPolicy,
    private val conditions: () -> Conditions,
    private val nanoseconds: () -> Long = System::nanoTime,
) {
    private var asked: Long? = null
    private var pause: Pause? = null

    /** Why the device must not work now, or null. */
    @Synchronized
    fun pause(): Pause? {
        val now = nanoseconds()
        if (asked?.let { now - it < INTERVAL } == true) return pause
        asked = now
        val found = policy.judge(conditions()).firstOrNull()
        if (found?.code != pause?.code) log.info(found?.let { "pausing: ${it.reason}" } ?: "going on")
        pause = found
        return found
    }

    private companion object {
        const val INTERVAL = 5_000_000_000L
        val log: Logger = Logger.getLogger(PowerWatch::class.java.name)
    }
}
