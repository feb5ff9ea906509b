package org.edvit.agent.policy

import java.io.IOException
import java.nio.file.Path
import kotlin.io.path.Path
import kotlin.io.path.isDirectory
import kotlin.io.path.listDirectoryEntries
import kotlin.io.path.readText

/** The power supplies of a Linux machine (`/sys/class/power_supply`); one without a battery is on the mains. */
class LinuxConditions(
    private val supplies: Path = Path("/sys/class/power_supply"),
) {
    /** How the machine is now. */
    fun now(): Conditions {
        val all = if (supplies.isDirectory()) supplies.listDirectoryEntries() else emptyList()
        // A mouse's battery says nothing about the machine.
        val batteries = all.filter { read(it, "type") == "Battery" && read(it, "scope") != "Device" }
        if (batteries.isEmpty()) return Conditions(charging = true)
        return Conditions(
            charging = batteries.none { read(it, "status") in setOf("Discharging", "") },
            batteryPercent = batteries.mapNotNull { read(it, "capacity").toIntOrNull() }.minOrNull(),
        )
    }

    private fun read(
        supply: Path,
        name: String,
    ): String =
        try {
            supply.resolve(name).readText().trim()
        } catch (_: IOException) {
            ""
        }
}
