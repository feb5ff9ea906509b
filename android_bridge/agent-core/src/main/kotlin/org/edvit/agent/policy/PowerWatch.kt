package org.edvit.agent.policy

import java.util.logging.Logger

/** Looks at a machine's conditions at most once in a while, however often it is asked, and logs when the answer changes. */
class PowerWatch(
    private val policy: RunPolicy,
    private val conditions: () -> Conditions,
    private val nanoseconds: () -> Long = System::nanoTime,
) {
    private var asked: Long? = null
    private var pauses = emptyList<Pause>()

    /** Why the device must not work now, or null. */
    fun pause(): Pause? = pauses().firstOrNull()

    /** Every reason why it must not. */
    @Synchronized
    fun pauses(): List<Pause> {
        val now = nanoseconds()
        if (asked?.let { now - it < INTERVAL } == true) return pauses
        asked = now
        val found = policy.judge(conditions())
        if (found.firstOrNull()?.code != pauses.firstOrNull()?.code) {
            log.info(found.firstOrNull()?.let { "pausing: ${it.reason}" } ?: "going on")
        }
        pauses = found
        return found
    }

    private companion object {
        const val INTERVAL = 5_000_000_000L
        val log: Logger = Logger.getLogger(PowerWatch::class.java.name)
    }
}
