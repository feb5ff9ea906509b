package org.edvit.agent.rpc

import io.grpc.stub.ServerCallStreamObserver
import io.grpc.stub.StreamObserver
import org.edvit.agent.EdvitError
import org.edvit.agent.engine.Pending
import org.edvit.rpc.InferReply
import org.edvit.rpc.InferRequest
import java.util.concurrent.atomic.AtomicInteger
import java.util.logging.Level
import java.util.logging.Logger

/** What answers one picture. */
internal fun interface Infer {
    /** Begin, and tell `done` what came; throws EdvitError to refuse. */
    fun begin(
        request: InferRequest,
        done: (Result<InferReply>) -> Unit,
    ): Pending
}

/**
 * The answering side of any number of streams of pictures (decision 0035): answers may overtake each other.
 *
 * At most `most` pictures are under way over all streams; one more is told that the device is busy.
 */
internal class Answering(
    private val infer: Infer,
    private val most: Int,
) {
    private val underWay = AtomicInteger()

    /** Answer what comes on one stream. */
    fun stream(replies: StreamObserver<InferReply>): StreamObserver<InferRequest> = Stream(replies as ServerCallStreamObserver<InferReply>)

    private inner class Stream(
        private val replies: ServerCallStreamObserver<InferReply>,
    ) : StreamObserver<InferRequest> {
        private val pending = HashMap<Long, Pending>()
        private var asked = true
        private var closed = false

        init {
            replies.setOnCancelHandler { giveUp() }
        }

        override fun onNext(request: InferRequest) {
            if (request.withdrawn) return withdraw(request.turn)
            if (underWay.incrementAndGet() > most) {
                underWay.decrementAndGet()
                return say(refusal(request.turn, "the device is busy: try again", "device.busy"))
            }
            begin(request)
        }

        // Begun under the lock: an answer that comes at once must find its turn.
        @Synchronized
        private fun begin(request: InferRequest) {
            if (closed) return end()
            try {
                pending[request.turn] = NOT_YET
                val begun = infer.begin(request) { finish(request.turn, it) }
                if (request.turn in pending) pending[request.turn] = begun
            } catch (error: EdvitError) {
                finish(request.turn, Result.failure(error))
            }
        }

        @Synchronized
        private fun finish(
            turn: Long,
            result: Result<InferReply>,
        ) {
            if (pending.remove(turn) == null) return
            end()
            say(result.fold({ it.toBuilder().setTurn(turn).build() }, { failure(turn, it) }))
            closeWhenDone()
        }

        @Synchronized
        private fun withdraw(turn: Long) {
            val given = pending.remove(turn) ?: return
            given.cancel()
            end()
            closeWhenDone()
        }

        @Synchronized
        private fun giveUp() {
            closed = true
            pending.values.forEach {
                it.cancel()
                end()
            }
            pending.clear()
        }

        @Synchronized
        private fun say(reply: InferReply) {
            if (!closed) replies.onNext(reply)
        }

        private fun end() {
            underWay.decrementAndGet()
        }

        override fun onError(error: Throwable) = giveUp()

        @Synchronized
        override fun onCompleted() {
            asked = false
            closeWhenDone()
        }

        private fun closeWhenDone() {
            if (asked || closed || pending.isNotEmpty()) return
            closed = true
            replies.onCompleted()
        }
    }

    private fun failure(
        turn: Long,
        error: Throwable,
    ): InferReply {
        if (error is EdvitError) return refusal(turn, error.message, error.code)
        log.log(Level.SEVERE, "a picture was not answered", error)
        return refusal(turn, "the device failed: its log says how", "device")
    }

    private fun refusal(
        turn: Long,
        reason: String,
        code: String,
    ): InferReply =
        InferReply
            .newBuilder()
            .setTurn(turn)
            .setRefused(reason)
            .setCode(code)
            .build()

    private companion object {
        val NOT_YET = Pending {}
        val log: Logger = Logger.getLogger(Answering::class.java.name)
    }
}
