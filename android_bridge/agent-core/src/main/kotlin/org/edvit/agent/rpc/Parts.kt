package org.edvit.agent.rpc

import io.grpc.Status
import io.grpc.stub.ServerCallStreamObserver
import io.grpc.stub.StreamObserver
import org.edvit.agent.EdvitError
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit

/** What comes over a stream, one after the other; what a conversation reads from. */
fun interface Parts<out T : Any> {
    /**
     * The next part; null when the other side has ended the stream, or left.
     *
     * @throws Silence when nothing comes for so many seconds.
     */
    fun next(seconds: Double): T?
}

/** Nothing came in time. */
class Silence(
    seconds: Double,
) : Exception("nothing came for ${seconds.toInt()} s")

/** The other side has gone, and nobody hears what would be said. */
class Gone : EdvitError("the aggregator went away", "device.interrupted")

/**
 * A stream in both directions as a conversation that one thread holds: it reads with [Parts] and says with `reply`.
 *
 * A part is asked of gRPC only when the one before was taken, so that a sender cannot fill the memory.
 */
internal class Conversation<Q : Any, R : Any>(
    private val observer: ServerCallStreamObserver<R>,
) : Parts<Q> {
    private sealed interface Event<out Q>

    private class Part<Q>(
        val value: Q,
    ) : Event<Q>

    private data object End : Event<Nothing>

    private val events = LinkedBlockingQueue<Event<Q>>()
    private var ended = false

    /** What gRPC calls; set up before the method of the service returns. */
    val incoming: StreamObserver<Q> =
        object : StreamObserver<Q> {
            override fun onNext(value: Q) {
                events.add(Part(value))
            }

            override fun onError(error: Throwable) {
                events.add(End)
            }

            override fun onCompleted() {
                events.add(End)
            }
        }

    init {
        observer.disableAutoRequest()
        observer.setOnCancelHandler { events.add(End) }
    }

    override fun next(seconds: Double): Q? {
        if (ended) return null
        observer.request(1)
        return when (val event = events.poll((1000 * seconds).toLong(), TimeUnit.MILLISECONDS) ?: throw Silence(seconds)) {
            is Part -> event.value
            End -> null.also { ended = true }
        }
    }

    /**
     * Say something.
     *
     * @throws Gone nobody is there any more.
     */
    fun reply(value: R) {
        if (observer.isCancelled) throw Gone()
        observer.onNext(value)
    }

    /**
     * Take what was still under way when everything was said.
     *
     * What comes for a call that is over counts against the connection's window for ever in grpc-okhttp: after 64 kB of it
     * nothing comes any more, on any call.
     */
    private fun drain() {
        val end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DRAIN_SECONDS)
        try {
            while (System.nanoTime() < end && next(QUIET_SECONDS) != null) continue
        } catch (_: Silence) {
            // Nothing is under way.
        }
    }

    /** Hold the conversation in a thread of its own, and end the stream after it. */
    fun hold(
        name: String,
        work: () -> Unit,
    ) {
        Thread({
            try {
                work()
                drain()
                if (!observer.isCancelled) observer.onCompleted()
            } catch (_: Gone) {
                // Nobody to tell.
            } catch (error: RuntimeException) {
                observer.onError(Status.UNKNOWN.withDescription("the device failed: its log says how").asRuntimeException())
                throw error
            }
        }, name).start()
    }

    private companion object {
        const val QUIET_SECONDS = 0.2
        const val DRAIN_SECONDS = 10L
    }
}
