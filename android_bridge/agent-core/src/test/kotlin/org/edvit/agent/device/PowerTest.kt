package org.edvit.agent.device

import org.edvit.agent.store.Disk
import org.edvit.agent.store.LocalFile
import org.edvit.agent.store.LocalFiles
import org.edvit.agent.store.OpenFile
import org.edvit.agent.store.PowerCut
import org.edvit.agent.store.Quick
import org.edvit.agent.store.Store
import org.edvit.agent.store.Survives
import org.edvit.agent.trust.Identity
import org.edvit.rpc.InstallReply
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.opentest4j.AssertionFailedError
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlin.io.path.ExperimentalPathApi
import kotlin.io.path.copyToRecursively
import kotlin.io.path.createDirectories
import kotlin.io.path.deleteIfExists
import kotlin.io.path.deleteRecursively
import kotlin.random.Random

private val OLD = SignedBundle(1)
private val NEW = SignedBundle(2)

/** What a device does while the power goes: it takes a newer version and settles for it. */
private fun change(service: DeviceService) {
    assertServing(service.take(NEW.parts(0, "int8")))
    assertServing(service.take(NEW.settle))
}

private fun assertServing(replies: List<InstallReply>) = assertEquals(InstallReply.Step.SERVING, replies.last().step, replies.last().reason)

/** The power goes, or the process is killed, at every step: the old sub-model or the new, never neither. */
@OptIn(ExperimentalPathApi::class)
class PowerTest {
    @TempDir
    lateinit var folder: Path

    private val survivors: Map<String, Survives> =
        mapOf(
            "nothing" to Survives { _, _ -> false },
            "all" to Survives { _, _ -> true },
            "names" to Survives { kind, _ -> kind == "name" },
            "data" to Survives { kind, _ -> kind == "data" },
        )

    private fun template(): Path {
        val template = folder.resolve("template")
        withDevice(template, Quick()) { assertServing(it.take(OLD.parts(0, "f32"))) }
        template.resolve("lock").deleteIfExists()
        return template
    }

    private fun copy(
        source: Path,
        name: String,
    ): Path = folder.resolve(name).also { source.copyToRecursively(it, followLinks = false) }

    private fun checkWhole(store: Path) {
        withDevice(store, Quick()) { service ->
            val generations = service.shelf.generations
            assertTrue(generations.isNotEmpty() && generations.all { one -> one.held.isNotEmpty() }, "nothing is held")
            assertTrue(generations.all { one -> one.held.values.all { it.engine != null } }, "something does not serve")
        }
    }

    private fun checkEveryCut(forgets: Boolean): Int {
        val template = template()
        var restarts = 0
        var cut = 0
        var finished = false
        while (!finished) {
            cut += 1
            val live = copy(template, "live")
            val disk = Disk(live, cut, forgets)
            try {
                withDevice(live, disk, work = ::change)
                finished = true
            } catch (_: PowerCut) {
                // As it should be.
            }
            val random =
                (0 until 4).associate { seed ->
                    "$seed" to Random(1000 * cut + seed).let { Survives { _, _ -> it.nextBoolean() } }
                }
            for (survives in (survivors + random).values) {
                val back = folder.resolve("back")
                disk.writeSurvivors(back, survives)
                checkWhole(back)
                withDevice(back, Quick(), work = ::change)
                back.deleteRecursively()
                restarts += 1
            }
            live.deleteRecursively()
        }
        assertTrue(cut > 10)
        return restarts
    }

    @Test
    fun `a power cut while a new version comes`() {
        assertTrue(checkEveryCut(forgets = false) >= 150)
    }

    @Test
    fun `a store that forgets to sync would be found out`() {
        assertThrows(AssertionFailedError::class.java) { checkEveryCut(forgets = true) }
    }

    @Test
    fun `an identity that was announced is never lost`() {
        val root = folder.resolve("root").createDirectories()
        val disk = Disk(root, Int.MAX_VALUE)
        val id = Store(root.resolve("deep/store"), disk).use { Identity.loadOrMake(it).id }
        disk.writeSurvivors(folder.resolve("back")) { _, _ -> false }
        assertEquals(id, Store(folder.resolve("back/deep/store")).use { Identity.loadOrMake(it).id })
    }

    @Test
    fun `a process that is killed at any step`() {
        val template = template()
        var kills = 0
        while (true) {
            val store = copy(template, "killed")
            val status = killedAt(kills + 1, store)
            if (status == 0) break
            assertEquals(SIGKILL, status)
            kills += 1
            checkWhole(store)
            store.deleteRecursively()
        }
        assertTrue(kills > 10, "$kills")
    }

    private fun killedAt(
        step: Int,
        store: Path,
    ): Int {
        val java = Path.of(System.getProperty("java.home"), "bin", "java").toString()
        val vectors = "-Dedvit.vectors=${System.getProperty("edvit.vectors")}"
        val command = listOf(java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", vectors, "-cp", System.getProperty("java.class.path"))
        val child = ProcessBuilder(command + listOf("org.edvit.agent.device.PowerTestKt", "$step", "$store")).inheritIO().start()
        assertTrue(child.waitFor(60, TimeUnit.SECONDS))
        return child.exitValue()
    }

    private companion object {
        const val SIGKILL = 137
    }
}

/** The real disk; the process ends with SIGKILL before operation number `kill`. */
private class Killing(
    private val kill: Int,
) : LocalFiles() {
    private var steps = 0

    private fun step() {
        steps += 1
        if (steps == kill) {
            ProcessBuilder("kill", "-9", "${ProcessHandle.current().pid()}").start().waitFor()
        }
    }

    override fun makeFolder(path: Path) = step().also { super.makeFolder(path) }

    override fun rename(
        source: Path,
        target: Path,
    ) = step().also { super.rename(source, target) }

    override fun remove(path: Path) = step().also { super.remove(path) }

    override fun syncFolder(path: Path) = step().also { super.syncFolder(path) }

    override fun append(path: Path): OpenFile {
        step()
        return object : LocalFile(path) {
            override fun write(data: ByteArray) {
                super.write(data.copyOf(data.size / 2))
                step()
                super.write(data.copyOfRange(data.size / 2, data.size))
            }

            override fun sync() = step().also { super.sync() }
        }
    }
}

/** A device that takes a new version and kills itself at one step of it. */
fun main(arguments: Array<String>) = withDevice(Path.of(arguments[1]), Killing(arguments[0].toInt()), work = ::change)
