package org.edvit.phone

import org.edvit.agent.policy.Limits

/** Small values that outlive the app's process. */
interface Values {
    /** What was put under a name, or null. */
    operator fun get(name: String): String?

    /** Keep a value, or forget it with null. */
    operator fun set(
        name: String,
        value: String?,
    )
}

/** What the phone's owner allows; at first it works only while it charges and on Wi-Fi. */
data class Choices(
    val chargingOnly: Boolean = true,
    val batteryFloor: Int = 30,
    val wifiOnly: Boolean = true,
    val gpu: Boolean = false,
) {
    /** The same for the run policy. */
    val limits: Limits get() = Limits(chargingOnly, batteryFloor, wifiOnly = wifiOnly)

    /** Keep them. */
    fun save(values: Values) {
        values[CHARGING_ONLY] = "$chargingOnly"
        values[BATTERY_FLOOR] = "$batteryFloor"
        values[WIFI_ONLY] = "$wifiOnly"
        values[GPU] = "$gpu"
    }

    companion object {
        private const val CHARGING_ONLY = "charging-only"
        private const val BATTERY_FLOOR = "battery-floor"
        private const val WIFI_ONLY = "wifi-only"
        private const val GPU = "gpu"
        private const val LARGEST_PERCENT = 100

        /** What was kept; what was not, or makes no sense, is as at first. */
        fun load(values: Values): Choices {
            val first = Choices()
            return Choices(
                values[CHARGING_ONLY]?.toBooleanStrictOrNull() ?: first.chargingOnly,
                values[BATTERY_FLOOR]?.toIntOrNull()?.takeIf { it in 0..LARGEST_PERCENT } ?: first.batteryFloor,
                values[WIFI_ONLY]?.toBooleanStrictOrNull() ?: first.wifiOnly,
                values[GPU]?.toBooleanStrictOrNull() ?: first.gpu,
            )
        }
    }
}
