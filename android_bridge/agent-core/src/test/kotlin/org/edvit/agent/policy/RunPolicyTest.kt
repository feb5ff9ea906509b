package org.edvit.agent.policy

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import kotlin.io.path.createDirectories
import kotlin.io.path.writeText

class RunPolicyTest {
    private fun codes(
        policy: RunPolicy,
        now: Conditions,
    ) = policy.judge(now).map { it.code }

    @Test
    fun `without limits a device runs, whatever is unknown`() {
        assertEquals(emptyList<String>(), codes(RunPolicy(Limits()), Conditions()))
        assertEquals(emptyList<String>(), codes(RunPolicy(Limits()), Conditions(false, 1, 0.5, false)))
    }

    @Test
    fun `charging only takes a machine at its word alone`() {
        val policy = RunPolicy(Limits(chargingOnly = true))
        assertEquals(listOf("policy.charging"), codes(policy, Conditions(charging = false)))
        assertEquals(listOf("policy.charging"), codes(policy, Conditions(charging = null)))
        assertEquals(emptyList<String>(), codes(policy, Conditions(charging = true)))
    }

    @Test
    fun `a battery at its floor does not switch a device on and off`() {
        val policy = RunPolicy(Limits(batteryFloor = 30))
        val paused = listOf(30, 29, 30, 34, 35, 31, 30, 29).map { codes(policy, Conditions(false, it)).isNotEmpty() }
        assertEquals(listOf(false, true, true, true, false, false, false, true), paused)
        assertEquals(emptyList<String>(), codes(policy, Conditions(true, 5)), "a battery that is charged is no reason")
    }

    @Test
    fun `a hot device cools before it goes on`() {
        val policy = RunPolicy(Limits(thermalCeiling = 0.95))
        val paused = listOf(0.9, 0.96, 0.9, 0.86, 0.85, 0.94).map { codes(policy, Conditions(thermalHeadroom = it)).isNotEmpty() }
        assertEquals(listOf(false, true, true, true, false, false), paused)
        assertEquals(emptyList<String>(), codes(policy, Conditions(thermalHeadroom = Double.NaN)), "asked too often")
    }

    @Test
    fun `every reason is said, each with what to do`() {
        val found = RunPolicy(Limits(true, 50, 0.5, true)).judge(Conditions(false, 10, 0.9, false))
        assertEquals(listOf("policy.charging", "policy.battery", "policy.thermal", "policy.wifi"), found.map { it.code })
        assertTrue(found.all { ": " in it.reason })
    }

    @Test
    fun `a watch tells every reason, and asks the machine once in five seconds`() {
        var asked = 0
        var clock = 0L
        val conditions = {
            asked += 1
            Conditions(charging = false, wifi = false)
        }
        val watch = PowerWatch(RunPolicy(Limits(chargingOnly = true, wifiOnly = true)), conditions) { clock }
        assertEquals(listOf("policy.charging", "policy.wifi"), watch.pauses().map { it.code })
        assertEquals("policy.charging", watch.pause()?.code)
        assertEquals(1, asked)
        clock += 5_000_000_000L
        watch.pause()
        assertEquals(2, asked)
    }

    @Test
    fun `a machine says how its power is`(
        @TempDir folder: Path,
    ) {
        val power = LinuxConditions(folder)
        assertEquals(Conditions(charging = true), power.now(), "without a battery it is on the mains")

        fun supply(
            name: String,
            vararg files: Pair<String, String>,
        ) = files.forEach { (file, text) ->
            folder
                .resolve(name)
                .createDirectories()
                .resolve(file)
                .writeText("$text\n")
        }
        supply("mouse", "type" to "Battery", "scope" to "Device", "status" to "Discharging", "capacity" to "3")
        assertEquals(Conditions(charging = true), power.now())
        supply("BAT0", "type" to "Battery", "status" to "Discharging", "capacity" to "41")
        assertEquals(Conditions(charging = false, batteryPercent = 41), power.now())
        supply("BAT0", "type" to "Battery", "status" to "Charging", "capacity" to "42")
        assertEquals(Conditions(charging = true, batteryPercent = 42), power.now())
    }
}
