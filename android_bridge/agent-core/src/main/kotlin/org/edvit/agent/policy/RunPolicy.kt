package org.edvit.agent.policy

/**
 * How a machine is at this moment; null for what it cannot say.
 *
 * `thermalHeadroom` is Android's: 1.0 is where the system begins to throttle severely.
 */
data class Conditions(
    val charging: Boolean? = null,
    val batteryPercent: Int? = null,
    val thermalHeadroom: Double? = null,
    val wifi: Boolean? = null,
)

/** What a machine's owner allows. */
data class Limits(
    val chargingOnly: Boolean = false,
    val batteryFloor: Int = 0,
    val thermalCeiling: Double = 0.95,
    val wifiOnly: Boolean = false,
)

/** Why a device does not run now: for programs, and as a sentence that ends with what to do. */
data class Pause(
    val code: String,
    val reason: String,
)

/**
 * Decides whether a device runs, so that it never surprises its owner's battery.
 *
 * What paused it has to be better by a margin before it runs again: a battery at its floor does not switch it on and off. What
 * is unknown is no reason to pause, but for "charging only", which a machine that cannot say so does not fulfil.
 */
class RunPolicy(
    private val limits: Limits,
) {
    private var paused = emptySet<String>()

    /** Every reason against running; none means that it runs. */
    @Synchronized
    fun judge(now: Conditions): List<Pause> {
        val found = listOfNotNull(charging(now), battery(now), thermal(now), wifi(now))
        paused = found.map { it.code }.toSet()
        return found
    }

    private fun charging(now: Conditions): Pause? {
        if (!limits.chargingOnly || now.charging == true) return null
        val state = if (now.charging == null) "this machine does not say whether it is charging" else "this device is not charging"
        return Pause(CHARGING, "$state: connect it to power, or allow it to run on its battery")
    }

    private fun battery(now: Conditions): Pause? {
        if (now.charging == true) return null
        val floor = limits.batteryFloor + if (BATTERY in paused) BATTERY_MARGIN else 0
        return now.batteryPercent?.takeIf { it < floor }?.let {
            Pause(BATTERY, "the battery is at $it %, and this device runs again from $floor %: connect it to power")
        }
    }

    private fun thermal(now: Conditions): Pause? {
        val ceiling = limits.thermalCeiling - if (THERMAL in paused) THERMAL_MARGIN else 0.0
        return now.thermalHeadroom?.takeIf { it > ceiling }?.let {
            Pause(THERMAL, "this device is hot (%.2f of what it bears): let it cool".format(it))
        }
    }

    private fun wifi(now: Conditions): Pause? {
        if (!limits.wifiOnly || now.wifi != false) return null
        return Pause(WIFI, "this device is not on Wi-Fi: connect it, or allow other networks")
    }

    private companion object {
        const val CHARGING = "policy.charging"
        const val BATTERY = "policy.battery"
        const val THERMAL = "policy.thermal"
        const val WIFI = "policy.wifi"
        const val BATTERY_MARGIN = 5
        const val THERMAL_MARGIN = 0.1
    }
}
