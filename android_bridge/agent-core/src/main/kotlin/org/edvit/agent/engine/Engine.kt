package org.edvit.agent.engine

import java.io.Closeable
import java.util.concurrent.FutureTask
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit

/** What one picture gave, and the microseconds in the interpreter. */
class Timed(
    val output: Output,
    val microseconds: Int,
)

/** One loaded sub-model and its thread: an interpreter runs one picture at a time. */
class Engine(
    private val model: Model,
) : Closeable {
    private val thread =
        ThreadPoolExecutor(1, 1, 0, TimeUnit.SECONDS, LinkedBlockingQueue()) { Thread(it, "engine").apply { isDaemon = true } }

    /**
     * Run one picture in the thread, then tell `done` what came, or why nothing did.
     *
     * Cancelling what is returned takes a picture that still waits out of the queue; then nobody is told.
     */
    fun run(
        image: ByteArray,
        done: (Result<Timed>) -> Unit,
    ): Pending {
        val task = FutureTask({ done(runCatching { timed(image) }) }, Unit)
        thread.execute(task)
        return Pending {
            if (task.cancel(false)) thread.remove(task)
        }
    }

    /** End the thread after what it is doing now, and let go of the model. */
    override fun close() {
        thread.execute(model::close)
        thread.shutdown()
    }

    private fun timed(image: ByteArray): Timed {
        val start = System.nanoTime()
        val output = model.run(image)
        return Timed(output, ((System.nanoTime() - start) / 1000).toInt())
    }
}

/** A picture under way. */
fun interface Pending {
    /** Nobody waits for it any more. */
    fun cancel()
}
