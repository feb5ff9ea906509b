package org.edvit.phone

import android.content.Context
import android.content.pm.PackageManager
import android.os.Build
import android.os.Handler
import android.os.Looper
import android.provider.Settings.Global
import org.edvit.agent.device.Agent
import org.edvit.agent.device.LinuxMemory
import org.edvit.agent.device.Settings
import org.edvit.agent.policy.PowerWatch
import org.edvit.agent.policy.RunPolicy
import org.edvit.agent.store.Store
import org.edvit.agent.trust.Membership
import org.edvit.agent.trust.Pairing
import java.net.InetAddress
import java.nio.file.Path
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.Executors

private const val PORT = 7434

/** The device of this phone: one in the app's process, whatever screens and services come and go. */
class Device private constructor(
    private val app: PhoneApplication,
) {
    private val sensors = AndroidSensors(app)
    private val conditions = PhoneConditions(sensors)
    private val awake = Awake(ProcessorHold(app))
    private val loop = AgentLoop(::attempt, ::hear)

    // One after the other, and none on the thread of the screen: a stop waits for what is under way.
    private val commands = Executors.newSingleThreadExecutor()
    private val listeners = CopyOnWriteArrayList<() -> Unit>()
    private val screen = Handler(Looper.getMainLooper())
    private val permissions =
        Permissions(Build.VERSION.SDK_INT, app.applicationInfo.targetSdkVersion) {
            app.checkSelfPermission(it) == PackageManager.PERMISSION_GRANTED
        }

    @Volatile
    private var standing: Standing = Standing.Off

    @Volatile
    private var watch = watch()

    /** Whether its owner wants it to run. */
    val wish = Wish(app.values)

    /** How things are now. */
    val situation: Situation
        get() = Situation(standing, watch.pauses(), permissions.withoutWhichNothing(), sensors.network(), sensors.mayDoze())

    /** What to ask the owner for. */
    fun permissions(): Permissions = permissions

    /** Run it, unless it runs. */
    fun start() = commands.execute(loop::start)

    /** Stop it. */
    fun stop() =
        commands.execute {
            loop.stop()
            awake.release()
        }

    /** Take what the owner has chosen: a device that runs does it anew. */
    fun choose(choices: Choices) = changed { choices.save(app.values) }

    /** Join by a token. */
    fun join(word: String) = changed { app.values[TOKEN] = word }

    /** Forget the fleet. */
    fun leave() =
        changed {
            app.values[TOKEN] = null
            Store(folder).use { Membership.leave(it, newKey = false) }
        }

    /** Hear of changes, on the thread of the screen. */
    fun listen(listener: () -> Unit) {
        listeners += listener
    }

    /** Hear of no more of them. */
    fun forget(listener: () -> Unit) {
        listeners -= listener
    }

    /** Look at the phone's conditions, which change without a word to anybody. */
    fun look() {
        val now = situation
        // Not by the conditions: who asks for the headroom twice within a second is told nothing the second time.
        awake.look(now, sensors.battery()?.charging == true)
        tell()
    }

    private val folder: Path get() = app.filesDir.toPath().resolve("device")

    /** Change something that a device reads when it starts. */
    private fun changed(change: () -> Unit) =
        commands.execute {
            loop.stop()
            change()
            watch = watch()
            if (wish.runs) loop.start()
        }

    private fun watch() = PowerWatch(RunPolicy(Choices.load(app.values).limits), conditions::now)

    private fun attempt(say: (Standing) -> Unit): Attempt {
        val runtime = app.runtime(Choices.load(app.values))
        val announcer = PairingMulticast(NsdAnnouncer(app), MulticastHold(app))
        val agent =
            Agent(
                settings(),
                runtime,
                announcer,
                watch,
                app.journal,
                { say(Standing.Waits(it.name, it.code, it.link)) },
                {
                    app.values[TOKEN] = null
                    say(Standing.Serves(it.name, it.port))
                },
            )
        return object : Attempt {
            override fun run() = agent.run()

            override fun stop() = agent.stop()
        }
    }

    private fun settings(): Settings {
        val name = Global.getString(app.contentResolver, Global.DEVICE_NAME) ?: Build.MODEL
        // The other half of the half is for whatever else a phone does.
        val memory = LinuxMemory.halfOfMachine() / 2
        val token = app.values[TOKEN]?.let(Pairing::readToken)
        return Settings(name, folder, InetAddress.getByName("0.0.0.0"), PORT, memory, token, app.software)
    }

    private fun hear(now: Standing) {
        standing = now
        look()
    }

    private fun tell() = screen.post { listeners.forEach { it() } }

    companion object {
        private const val TOKEN = "token"

        @Volatile
        private var made: Device? = null

        /** The one of this process. */
        fun of(context: Context): Device =
            made ?: synchronized(this) {
                made ?: Device(context.applicationContext as PhoneApplication).also { made = it }
            }
    }
}
