package org.edvit.phone

import org.edvit.agent.policy.Conditions

/** The battery at one moment. */
data class Battery(
    val charging: Boolean,
    val percent: Int,
)

/** What a phone's system tells of itself; null for what it does not say. */
interface Sensors {
    /** Its battery. */
    fun battery(): Battery?

    /** How near it is to severe throttling, which is 1.0 (Android 11); NaN when it cannot say, or was asked within a second. */
    fun headroom(): Float

    /** Android's seven steps of throttling, from 0 (none) to 6 (the phone turns itself off). */
    fun thermalStatus(): Int

    /** Whether what it sends goes over Wi-Fi. */
    fun wifi(): Boolean?
}

/** A phone as the run policy sees it. */
class PhoneConditions(
    private val sensors: Sensors,
) {
    /** How it is now. */
    fun now(): Conditions {
        val battery = sensors.battery()
        return Conditions(battery?.charging, battery?.percent, headroom(), sensors.wifi())
    }

    /** The steps stand in for a headroom that is not told, and overrule one that is lower. */
    private fun headroom(): Double {
        val told = sensors.headroom().toDouble()
        val step = STEPS[sensors.thermalStatus().coerceIn(STEPS.indices)]
        return if (told.isNaN()) step else maxOf(told, step)
    }

    private companion object {
        // None, light, moderate, severe, critical, emergency, shutdown.
        val STEPS = listOf(0.0, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    }
}
