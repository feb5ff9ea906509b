package org.edvit.agent.rpc

import io.grpc.stub.ServerCallStreamObserver
import org.edvit.agent.EdvitError
import org.edvit.agent.engine.Pending
import org.edvit.rpc.InferReply
import org.edvit.rpc.InferRequest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The other side of a stream, which keeps what it is told. */
private class Asker : ServerCallStreamObserver<InferReply>() {
    val heard = ArrayList<InferReply>()
    var over = false
    private var onCancel = Runnable {}

    fun leave() = onCancel.run()

    override fun onNext(value: InferReply) {
        heard += value
    }

    override fun onCompleted() {
        over = true
    }

    override fun setOnCancelHandler(handler: Runnable) {
        onCancel = handler
    }

    override fun onError(error: Throwable) = throw error

    override fun isCancelled() = false

    override fun isReady() = true

    override fun setCompression(compression: String) = Unit

    override fun setOnReadyHandler(handler: Runnable) = Unit

    override fun disableAutoInboundFlowControl() = Unit

    override fun request(count: Int) = Unit

    override fun setMessageCompression(enable: Boolean) = Unit
}

class AnsweringTest {
    private val begun = HashMap<Long, (Result<InferReply>) -> Unit>()
    private val withdrawn = ArrayList<Long>()
    private val answering =
        Answering({ request, done ->
            if (request.bundle == "wrong") throw EdvitError("not here", "device.version")
            begun[request.turn] = done
            Pending { withdrawn += request.turn }
        }, most = 2)

    private fun request(
        turn: Long,
        bundle: String = "",
    ) = InferRequest
        .newBuilder()
        .setTurn(turn)
        .setBundle(bundle)
        .build()

    private fun answer(turn: Long) = begun.getValue(turn)(Result.success(InferReply.getDefaultInstance()))

    @Test
    fun `answers overtake each other and name their turn`() {
        val asker = Asker()
        val stream = answering.stream(asker)
        stream.onNext(request(1))
        stream.onNext(request(2))
        answer(2)
        answer(1)
        stream.onNext(request(3, "wrong"))
        assertEquals(listOf(2L to "", 1L to "", 3L to "device.version"), asker.heard.map { it.turn to it.code })
    }

    @Test
    fun `what is too much over all streams is busy`() {
        val askers = listOf(Asker(), Asker())
        val (one, other) = askers.map(answering::stream)
        one.onNext(request(1))
        other.onNext(request(2))
        one.onNext(request(3))
        assertEquals("device.busy", askers[0].heard.single().code)
        answer(2)
        one.onNext(request(4))
        assertTrue(4L in begun)
    }

    @Test
    fun `who gives up is not answered, and leaves room`() {
        val asker = Asker()
        val stream = answering.stream(asker)
        stream.onNext(request(1))
        stream.onNext(request(2))
        stream.onNext(
            InferRequest
                .newBuilder()
                .setTurn(1)
                .setWithdrawn(true)
                .build(),
        )
        stream.onNext(request(3))
        answer(1)
        answer(3)
        assertEquals(listOf(1L), withdrawn)
        assertEquals(listOf(3L), asker.heard.map { it.turn })
    }

    @Test
    fun `a stream that is left takes nothing with it`() {
        val gone = Asker()
        val stream = answering.stream(gone)
        stream.onNext(request(1))
        stream.onNext(request(2))
        gone.leave()
        assertEquals(setOf(1L, 2L), withdrawn.toSet())
        answer(1)
        assertTrue(gone.heard.isEmpty())
        val next = Asker()
        answering.stream(next).onNext(request(3))
        answer(3)
        assertEquals(listOf(3L), next.heard.map { it.turn })
    }

    @Test
    fun `a stream ends after its last answer`() {
        val asker = Asker()
        val stream = answering.stream(asker)
        stream.onNext(request(1))
        stream.onCompleted()
        assertFalse(asker.over)
        answer(1)
        assertTrue(asker.over)
    }
}
