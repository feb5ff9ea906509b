package org.edvit.phone

import org.edvit.agent.policy.Conditions
import org.edvit.agent.policy.Pause
import org.edvit.agent.policy.RunPolicy
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Values in memory. */
class FakeValues : Values {
    private val map = HashMap<String, String>()

    override fun get(name: String): String? = map[name]

    override fun set(
        name: String,
        value: String?,
    ) {
        if (value == null) map.remove(name) else map[name] = value
    }
}

/** Counts how often it is held. */
class FakeHold : Hold {
    var held = 0

    override fun take() {
        held += 1
    }

    override fun release() {
        held -= 1
        check(held >= 0) { "released twice" }
    }
}

class FakeSensors(
    var battery: Battery? = Battery(true, 80),
    var headroom: Float = Float.NaN,
    var status: Int = 0,
    var wifi: Boolean? = true,
) : Sensors {
    override fun battery() = battery

    override fun headroom() = headroom

    override fun thermalStatus() = status

    override fun wifi() = wifi
}

class PhoneConditionsTest {
    private val sensors = FakeSensors()

    private fun codes() = RunPolicy(Choices().limits).judge(PhoneConditions(sensors).now()).map { it.code }

    @Test
    fun `a phone that charges, is cool and on Wi-Fi runs`() {
        assertEquals(emptyList<String>(), codes())
    }

    @Test
    fun `each condition that is not met is a reason of its own`() {
        sensors.battery = Battery(false, 80)
        assertEquals(listOf("policy.charging"), codes())
        sensors.battery = Battery(false, 29)
        sensors.wifi = false
        sensors.status = 3
        assertEquals(listOf("policy.charging", "policy.battery", "policy.thermal", "policy.wifi"), codes())
    }

    @Test
    fun `the step of throttling stands in for a headroom that is not told, and overrules a lower one`() {
        sensors.status = 2
        assertEquals(0.9, PhoneConditions(sensors).now().thermalHeadroom)
        sensors.headroom = 0.4f
        assertEquals(0.9, PhoneConditions(sensors).now().thermalHeadroom)
        sensors.headroom = 0.97f
        assertEquals(listOf("policy.thermal"), codes())
        sensors.status = 99
        assertEquals(1.3, PhoneConditions(sensors).now().thermalHeadroom, "a step of an Android that is newer than we are")
    }

    @Test
    fun `what the phone does not say is unknown`() {
        sensors.battery = null
        sensors.wifi = null
        assertEquals(Conditions(null, null, 0.0, null), PhoneConditions(sensors).now())
        assertEquals(listOf("policy.charging"), codes(), "it must say that it charges")
    }
}

class ChoicesTest {
    @Test
    fun `at first a phone works only while it charges and on Wi-Fi`() {
        assertEquals(Choices(chargingOnly = true, batteryFloor = 30, wifiOnly = true, gpu = false), Choices.load(FakeValues()))
    }

    @Test
    fun `what was chosen is kept, and what makes no sense is as at first`() {
        val values = FakeValues()
        val chosen = Choices(chargingOnly = false, batteryFloor = 55, wifiOnly = false, gpu = true)
        chosen.save(values)
        assertEquals(chosen, Choices.load(values))
        values["battery-floor"] = "101"
        values["wifi-only"] = "perhaps"
        assertEquals(chosen.copy(batteryFloor = 30, wifiOnly = true), Choices.load(values))
    }
}

class PermissionsTest {
    private fun names(permissions: List<Permission>) = permissions.map { it.name }

    @Test
    fun `a permission is asked for where Android asks, when it is needed`() {
        val none = { sdk: Int, target: Int -> Permissions(sdk, target) { false } }
        assertEquals(emptyList<String>(), names(none(29, 36).toAskAtStart()))
        assertEquals(listOf("NOTIFICATIONS"), names(none(33, 36).toAskAtStart()))
        assertEquals(listOf("NOTIFICATIONS"), names(none(37, 36).toAskAtStart()), "the app is made for 36")
        assertEquals(listOf("NOTIFICATIONS"), names(none(36, 37).toAskAtStart()), "the phone is of 36")
        assertEquals(listOf("NOTIFICATIONS", "LOCAL_NETWORK"), names(none(37, 37).toAskAtStart()))
        assertEquals(listOf("CAMERA"), names(none(29, 36).toScan()))
    }

    @Test
    fun `without notifications it runs, without the local network it does not`() {
        assertEquals(listOf("LOCAL_NETWORK"), names(Permissions(37, 37) { false }.withoutWhichNothing()))
        val given = Permissions(37, 37) { it == "android.permission.ACCESS_LOCAL_NETWORK" }
        assertEquals(emptyList<String>(), names(given.withoutWhichNothing()))
        assertEquals(listOf("NOTIFICATIONS"), names(given.toAskAtStart()))
    }
}

class ExplanationTest {
    private val serves = Standing.Serves("kitchen phone", 7434)
    private val hot = Pause("policy.thermal", "this device is hot (1.00 of what it bears): let it cool")
    private val empty = Pause("policy.battery", "the battery is at 12 %, and this device runs again from 30 %: connect it to power")

    private fun title(now: Situation) = explain(now).title

    @Test
    fun `every reason is said`() {
        assertEquals(
            Explanation(
                "Paused",
                listOf(
                    "The battery is at 12 %, and this device runs again from 30 %: connect it to power.",
                    "This device is hot (1.00 of what it bears): let it cool.",
                ),
            ),
            explain(Situation(serves, listOf(empty, hot))),
        )
    }

    @Test
    fun `what is in the way comes before what would be in the way`() {
        val missing = listOf(Permission.LOCAL_NETWORK)
        val all = Situation(serves, listOf(hot), missing, network = false, mayDoze = true)
        assertEquals("Stopped", title(all.copy(standing = Standing.Off)))
        assertEquals("Not running", title(all))
        assertTrue("so that the other machines in this network reach it" in explain(all).lines.single())
        assertEquals("Not reachable", title(all.copy(missing = emptyList())))
        assertEquals("Paused", title(all.copy(missing = emptyList(), network = true)))
        assertEquals("Running", title(all.copy(missing = emptyList(), network = true, pauses = emptyList())))
    }

    @Test
    fun `what it is doing is said with what to do`() {
        assertEquals(
            listOf("Its code is 7K2M-Q4ZD-9HXA. On the aggregator: edvit-tf fleet adopt 'phone'"),
            explain(Situation(Standing.Waits("phone", "7K2M-Q4ZD-9HXA", "edvit:pair"))).lines,
        )
        assertTrue("join token" in explain(Situation(Standing.Waits("phone", "", ""))).lines.single())
        assertEquals(listOf("The disk is full. It tries again in 4 s."), explain(Situation(Standing.Failed("the disk is full", 4))).lines)
        assertEquals(listOf("kitchen phone answers at port 7434."), explain(Situation(serves)).lines)
        assertEquals(2, explain(Situation(serves, mayDoze = true)).lines.size)
    }
}

class WishTest {
    @Test
    fun `stop means not after the next start of the phone either`() {
        val values = FakeValues()
        assertFalse(Wish(values).starts(Start.SYSTEM), "nobody has ever started it")
        assertTrue(Wish(values).starts(Start.OWNER))
        assertTrue(Wish(values).starts(Start.SYSTEM), "the phone was started anew")
        assertTrue(Wish(values).starts(Start.AGAIN), "Android ended the process")
        Wish(values).stop()
        assertFalse(Wish(values).starts(Start.SYSTEM))
        assertFalse(Wish(values).starts(Start.AGAIN))
        assertTrue(Wish(values).starts(Start.OWNER))
    }
}

class AwakeTest {
    @Test
    fun `the processor is kept awake while the phone charges and answers, and never on its battery`() {
        val hold = FakeHold()
        val awake = Awake(hold)
        val serves = Situation(Standing.Serves("a", 1))
        val seen =
            listOf(
                serves to true,
                serves to true,
                serves to false,
                serves to true,
                serves.copy(pauses = listOf(Pause("policy.wifi", "no"))) to true,
                serves.copy(standing = Standing.Waits("a", "", "")) to true,
                serves.copy(standing = Standing.Failed("no", 1)) to true,
            ).map { (situation, charging) ->
                awake.look(situation, charging)
                hold.held
            }
        assertEquals(listOf(1, 1, 0, 1, 0, 1, 0), seen)
        awake.look(serves, true)
        awake.release()
        awake.release()
        assertEquals(0, hold.held)
    }
}
