package org.edvit.phone

import org.edvit.agent.EdvitError
import java.util.concurrent.locks.ReentrantLock
import java.util.logging.Level
import java.util.logging.Logger
import kotlin.concurrent.withLock

/** A device that can be run once. */
interface Attempt {
    /**
     * Serve until told to stop.
     *
     * @throws EdvitError why it cannot.
     */
    fun run()

    /** Tell [run] to end; from any thread, also before. */
    fun stop()
}

/**
 * Runs a device until it is told to stop, and again after it failed: after a second, then after ever longer, at most five minutes.
 *
 * `attempt` makes it, given where to say what it does; `say` hears of every change. No scheduler of the system is needed: a
 * foreground service lives, and what ends its process has its service started again by Android.
 */
class AgentLoop(
    private val attempt: (say: (Standing) -> Unit) -> Attempt,
    private val say: (Standing) -> Unit,
    private val milliseconds: () -> Long = { System.nanoTime() / NANOSECONDS },
) {
    private val lock = ReentrantLock()
    private val change = lock.newCondition()
    private var thread: Thread? = null
    private var current: Attempt? = null
    private var stopping = false

    /** Start it, unless it runs already. */
    fun start() =
        lock.withLock {
            if (thread != null) return
            stopping = false
            thread = Thread(::loop, "agent").apply { start() }
        }

    /** Stop it, and return when it has stopped. */
    fun stop() {
        val running =
            lock.withLock {
                stopping = true
                change.signalAll()
                current?.stop()
                thread
            }
        running?.join()
    }

    private fun loop() {
        var delay = FIRST_DELAY
        while (!isStopping()) {
            say(Standing.Starting)
            val began = milliseconds()
            val reason = tried()
            if (isStopping()) break
            // What ran well for a while has earned a quick start again.
            delay = if (milliseconds() - began >= HEALTHY) FIRST_DELAY else delay
            say(Standing.Failed(reason, delay / SECOND))
            pause(delay)
            delay = minOf(2 * delay, LONGEST_DELAY)
        }
        lock.withLock { thread = null }
        say(Standing.Off)
    }

    private fun tried(): String =
        try {
            val made = attempt(say)
            lock.withLock {
                current = made
                if (stopping) made.stop()
            }
            made.run()
            "it ended by itself"
        } catch (error: EdvitError) {
            log.warning(error.message)
            error.message
        } catch (error: Exception) {
            // It must not end without a word in a process that stays.
            log.log(Level.SEVERE, "the device failed", error)
            "it failed (${error.javaClass.simpleName}), and the log says where"
        } finally {
            lock.withLock { current = null }
        }

    private fun isStopping(): Boolean = lock.withLock { stopping }

    private fun pause(delay: Long) =
        lock.withLock {
            var left = delay * NANOSECONDS
            while (!stopping && left > 0) left = change.awaitNanos(left)
        }

    private companion object {
        const val NANOSECONDS = 1_000_000L
        const val SECOND = 1000L
        const val FIRST_DELAY = 1000L
        const val LONGEST_DELAY = 300_000L
        const val HEALTHY = 60_000L
        val log: Logger = Logger.getLogger(AgentLoop::class.java.name)
    }
}
