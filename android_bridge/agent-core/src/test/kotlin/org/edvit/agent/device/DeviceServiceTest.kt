package org.edvit.agent.device

import org.edvit.agent.EdvitError
import org.edvit.agent.Journal
import org.edvit.agent.Redaction
import org.edvit.agent.policy.Conditions
import org.edvit.agent.policy.Limits
import org.edvit.agent.policy.PowerWatch
import org.edvit.agent.policy.RunPolicy
import org.edvit.agent.store.Quick
import org.edvit.agent.store.Store
import org.edvit.rpc.InferRequest
import org.edvit.rpc.InstallHeader
import org.edvit.rpc.InstallReply
import org.edvit.rpc.InstallRequest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path
import java.util.logging.Level
import java.util.logging.LogRecord

class DeviceServiceTest {
    @TempDir
    lateinit var folder: Path

    private val bundle = SignedBundle(1)

    private fun withHeader(
        part: InstallRequest,
        change: InstallHeader.Builder.() -> Unit,
    ): InstallRequest = InstallRequest.newBuilder().setHeader(part.header.toBuilder().apply(change)).build()

    @Test
    fun `a device that pauses says why, and goes on`() {
        var power = Conditions(charging = false, batteryPercent = 20)
        var time = 0L
        val watch = PowerWatch(RunPolicy(Limits(batteryFloor = 30)), { power }, { time })
        Store(folder, Quick()).use { store ->
            val installer = Installer(store, Agreeable, 1_000_000_000, SignedBundle.key) { Long.MAX_VALUE }
            DeviceService(Facts("a", "test", "1", Agreeable.name, 1), Shelf(), installer, watch::pause).use { service ->
                val refused = service.take(bundle.parts(0, "f32")).single()
                assertEquals(InstallReply.Step.REFUSED to "policy.battery", refused.step to refused.code)
                assertTrue("20 %" in refused.reason)
                val error = assertThrows(EdvitError::class.java) { service.infer(InferRequest.getDefaultInstance()) {} }
                assertEquals("policy.battery", error.code)
                power = Conditions(charging = true, batteryPercent = 20)
                assertEquals("policy.battery", service.take(bundle.parts(0, "f32")).single().code, "asked again too soon")
                time += 6_000_000_000
                assertEquals(InstallReply.Step.SERVING, service.take(bundle.parts(0, "f32")).last().step)
            }
        }
    }

    @Test
    fun `an interrupted transfer goes on where it broke`() {
        withDevice(folder, Quick()) { service ->
            val parts = bundle.parts(0, "f32")
            assertEquals("device.interrupted", service.take(parts.take(3)).last().code)
            val header = withHeader(parts[0]) { setResumes(true) }
            val first = service.take(listOf(header)).first()
            assertEquals(parts[1].chunk.size() + parts[2].chunk.size(), first.receivedBytes.toInt())
            assertEquals(InstallReply.Step.SERVING, service.take(listOf(header) + parts.drop(3)).last().step)
        }
    }

    @Test
    fun `without memory for both the settled bundle rests where that is allowed`() {
        val memory =
            bundle.manifest.submodels[0]
                .variants
                .first { it.format == "f32" }
                .memoryBytes
        withDevice(folder, Quick(), memory) { service ->
            assertEquals(InstallReply.Step.SERVING, service.take(bundle.parts(0, "f32")).last().step)
            val newer = SignedBundle(2).parts(0, "int8")
            assertEquals("device.memory", service.take(newer).last().code)
            val header = withHeader(newer[0]) { setReplaces(true) }
            assertEquals(InstallReply.Step.SERVING, service.take(listOf(header) + newer.drop(1)).last().step)
            assertEquals(listOf(false, true), service.shelf.generations.map { it.serving })
            assertEquals(InstallReply.Step.SERVING, service.take(bundle.settle).last().step)
            assertEquals(listOf(1L to true), service.shelf.generations.map { it.version to it.serving })
        }
    }

    @Test
    fun `a journal keeps the last lines and no secret`() {
        val journal = Journal(most = 3)
        val token = "edvit1-" + "A".repeat(72)
        for (number in 1..5) journal.publish(LogRecord(Level.INFO, "line $number with $token and 7K2M-Q4ZD-9HXA"))
        val lines = ArrayList<String>()
        journal.read(last = 2, follow = false) { line -> line?.let(lines::add) ?: true }
        assertEquals(2, lines.size)
        assertTrue("line 4" in lines[0] && "line 5" in lines[1])
        assertFalse(lines.any { token in it || "7K2M" in it })
        assertFalse("QQ==" in Redaction.of("-----BEGIN PRIVATE KEY-----\nQQ=="))
    }
}
