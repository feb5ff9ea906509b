package org.edvit.agent

import com.google.gson.Gson
import org.edvit.agent.device.Agent
import org.edvit.agent.device.JmDnsAnnouncer
import org.edvit.agent.device.LinuxMemory
import org.edvit.agent.device.Ready
import org.edvit.agent.device.Settings
import org.edvit.agent.device.Waiting
import org.edvit.agent.engine.LiteRt
import org.edvit.agent.policy.Limits
import org.edvit.agent.policy.LinuxConditions
import org.edvit.agent.policy.PowerWatch
import org.edvit.agent.policy.RunPolicy
import org.edvit.agent.rpc.PROTOCOL
import org.edvit.agent.store.Store
import org.edvit.agent.trust.Membership
import org.edvit.agent.trust.Pairing
import picocli.CommandLine
import picocli.CommandLine.Command
import picocli.CommandLine.Option
import sun.misc.Signal
import java.net.Inet4Address
import java.net.InetAddress
import java.nio.file.Path
import java.util.concurrent.Callable
import kotlin.io.path.Path
import kotlin.system.exitProcess

private const val DEFAULT_PORT = 7434
private const val LARGEST_PORT = 65535
private const val LARGEST_PERCENT = 100
private const val LARGEST_NAME = 63
private const val MEGABYTE = 1_000_000
private const val USAGE = 2
private const val INTERRUPTED = 130

// A killed device says no goodbye; after this many seconds its record is forgotten.
private const val RECORD_SECONDS = "120"
private val SOFTWARE = Agent::class.java.`package`.implementationVersion ?: "0"

/** The verbs; options, lines of JSON and exit statuses are those of `edvit-tf device`. */
@Command(
    name = "agent-core",
    description = ["Be a device of a fleet."],
    subcommands = [Run::class, Leave::class],
    mixinStandardHelpOptions = true,
    versionProvider = Version::class,
    synopsisSubcommandLabel = "(run | leave)",
)
class Verbs

/** What `--version` says. */
class Version : CommandLine.IVersionProvider {
    override fun getVersion(): Array<String> = arrayOf(SOFTWARE)
}

/** Options that all verbs have. */
class Common {
    @Option(names = ["--store"], description = ["Folder for its key and sub-models (default: the user's data folder)."])
    var store: Path? = null

    @Option(names = ["--json"], description = ["Print JSON objects on standard output, everything else on standard error."])
    var json = false

    /** The folder that was named, or the one of `edvit-tf device`. */
    val folder: Path
        get() =
            store ?: (System.getenv("XDG_DATA_HOME")?.let(::Path) ?: Path(System.getProperty("user.home"), ".local", "share"))
                .resolve("edvit-tf")
                .resolve("device")
}

/** Be a device until SIGTERM or Ctrl-C. */
@Command(
    name = "run",
    description = ["Announce this machine, take sub-models and run them, until SIGTERM or Ctrl-C."],
    mixinStandardHelpOptions = true,
)
class Run : Callable<Int> {
    @CommandLine.Mixin
    lateinit var common: Common

    @Option(names = ["--name"], description = ["What people call this device (default: the host's name)."])
    var name = ""

    @Option(names = ["--port"], description = ["TCP port; 0 takes any free one."])
    var port = DEFAULT_PORT

    @Option(names = ["--interface"], description = ["IPv4 address of this machine to listen on (default: all of them)."])
    var address = "0.0.0.0"

    @Option(names = ["--memory-mb"], description = ["Megabytes given to sub-models (default: half of the memory)."])
    var memory: Double? = null

    @Option(names = ["--join"], description = ["Join a fleet with this token (edvit-tf fleet token), without a code."])
    var join: String? = null

    @Option(names = ["--litert"], description = ["libLiteRt.so of the Python package ai-edge-litert (default: \$EDVIT_LITERT)."])
    var litert: Path? = null

    @Option(names = ["--charging-only"], description = ["Answer only while the machine is charging."])
    var chargingOnly = false

    @Option(names = ["--battery-floor"], description = ["Percent of the battery below which it pauses (default: 0)."])
    var batteryFloor = 0

    override fun call(): Int {
        val settings = settings()
        val journal = Journal()
        Logs.begin(journal)
        System.setProperty("net.dns.ttl", RECORD_SECONDS)
        val watch = PowerWatch(RunPolicy(Limits(chargingOnly, batteryFloor)), LinuxConditions()::now)
        val agent = Agent(settings, LiteRt(LiteRt.find(litert)), JmDnsAnnouncer(PROTOCOL), watch, journal, ::waits, ::isReady)
        var status = 0
        for ((signal, meaning) in mapOf("TERM" to 0, "INT" to INTERRUPTED)) {
            Signal.handle(Signal(signal)) {
                status = meaning
                agent.stop()
            }
        }
        agent.run()
        System.err.println("${settings.name} has stopped")
        return status
    }

    private fun settings(): Settings {
        val called = name.ifEmpty { InetAddress.getLocalHost().hostName }
        if (called.toByteArray().size > LARGEST_NAME || called.any { it.isISOControl() }) {
            throw UsageError("--name must be 1 to $LARGEST_NAME bytes of printable text")
        }
        if (port !in 0..LARGEST_PORT) throw UsageError("--port must be from 0 (any free one) to $LARGEST_PORT, not $port")
        if (batteryFloor !in 0..LARGEST_PERCENT) throw UsageError("--battery-floor is a percentage, not $batteryFloor")
        if (memory?.let { it > 0 } == false) throw UsageError("--memory-mb must be more than 0, not $memory")
        return Settings(
            name = called,
            store = common.folder,
            address = ipv4(address),
            port = port,
            memoryBytes = memory?.let { (it * MEGABYTE).toLong() } ?: LinuxMemory.halfOfMachine(),
            token = join?.let(Pairing::readToken),
            software = SOFTWARE,
        )
    }

    private fun ipv4(text: String): InetAddress {
        val plain = Regex("[0-9]{1,3}(\\.[0-9]{1,3}){3}").matches(text) && text.split('.').all { it.toInt() <= 255 }
        val found = if (plain) InetAddress.getByName(text) else null
        return found as? Inet4Address ?: throw UsageError(
            "--interface must be an IPv4 address of this machine, for example 127.0.0.1 or 0.0.0.0 (all of them), not ${quote(text)}",
        )
    }

    private fun waits(waiting: Waiting) {
        when {
            common.json -> emit(mapOf("waiting" to waiting))
            waiting.code.isEmpty() -> println("${waiting.name} waits for its fleet: any `edvit-tf fleet deploy` there takes it")
            else -> {
                println("${waiting.name} waits to be adopted. Its code is ${waiting.code}")
                println(qrCode(waiting.link))
                println("On the aggregator: edvit-tf fleet adopt ${waiting.name}")
            }
        }
    }

    private fun isReady(ready: Ready) {
        if (common.json) emit(ready) else println("${ready.name} is ready at ${ready.address}:${ready.port} (id ${ready.id.take(12)})")
    }
}

/** Forget the fleet. */
@Command(
    name = "leave",
    description = ["Forget the fleet that this device belongs to, so that another can adopt it; it keeps its id."],
    mixinStandardHelpOptions = true,
)
class Leave : Runnable {
    @CommandLine.Mixin
    lateinit var common: Common

    @Option(names = ["--new-key"], description = ["Forget the key and the id, too, because the key was copied."])
    var newKey = false

    override fun run() {
        val left = Store(common.folder).use { Membership.leave(it, newKey) }
        when {
            common.json -> emit(mapOf("left" to left))
            left -> println("The device belongs to no fleet now")
            else -> println("The device belonged to no fleet")
        }
    }
}

private fun emit(value: Any) {
    println(Gson().toJson(value))
    System.out.flush()
}

fun main(arguments: Array<String>) {
    val json = "--json" in arguments
    val line =
        CommandLine(Verbs())
            .setExecutionExceptionHandler { error, _, _ ->
                if (error !is EdvitError) throw error
                if (json) emit(mapOf("error" to mapOf("code" to error.code, "message" to error.message)))
                System.err.println("error: ${error.message}")
                if (error is UsageError) USAGE else 1
            }
    exitProcess(line.execute(*arguments))
}
