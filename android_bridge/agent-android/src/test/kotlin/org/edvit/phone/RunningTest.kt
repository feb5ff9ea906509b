package org.edvit.phone

import com.google.zxing.BarcodeFormat
import com.google.zxing.qrcode.QRCodeWriter
import org.edvit.agent.EdvitError
import org.edvit.agent.device.Announcer
import org.edvit.agent.device.Facts
import org.edvit.agent.engine.Verdict
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertInstanceOf
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout
import java.io.Closeable
import java.io.IOException
import java.net.InetAddress
import java.util.Base64
import java.util.concurrent.CountDownLatch
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.TimeUnit
import kotlin.io.path.Path
import kotlin.random.Random

@Timeout(30)
class AgentLoopTest {
    private val heard = LinkedBlockingQueue<Standing>()

    private fun next() = heard.poll(10, TimeUnit.SECONDS)

    /** Serves until it is stopped. */
    private class Serving(
        private val say: (Standing) -> Unit,
    ) : Attempt {
        private val stopped = CountDownLatch(1)

        override fun run() {
            say(Standing.Serves("a", 1))
            stopped.await()
        }

        override fun stop() = stopped.countDown()
    }

    private class Failing(
        private val error: Exception,
    ) : Attempt {
        override fun run() = throw error

        override fun stop() = Unit
    }

    @Test
    fun `it serves until it is stopped, and again when it is started again`() {
        val loop = AgentLoop({ Serving(it) }, heard::add)
        repeat(2) {
            loop.start()
            loop.start()
            assertEquals(listOf(Standing.Starting, Standing.Serves("a", 1)), listOf(next(), next()))
            loop.stop()
            assertEquals(Standing.Off, next())
        }
        assertNull(heard.poll())
    }

    @Test
    fun `what failed is said, and tried again`() {
        var attempts = 0
        val loop =
            AgentLoop(
                {
                    attempts += 1
                    if (attempts == 1) Failing(EdvitError("the port is taken", "link.port")) else Serving(it)
                },
                heard::add,
            )
        loop.start()
        assertEquals(
            listOf(Standing.Starting, Standing.Failed("the port is taken", 1), Standing.Starting, Standing.Serves("a", 1)),
            List(4) { next() },
        )
        loop.stop()
    }

    @Test
    fun `a device that keeps failing is tried ever more rarely, and one that ran well is tried at once`() {
        // Each attempt takes as long as the clock says; none of them is real time, but the first second.
        val clock = ArrayDeque(listOf(0L, 10L, 20L, 30L, 40L, 100_000L))
        val loop = AgentLoop({ Failing(IllegalStateException("odd")) }, heard::add) { clock.removeFirst() }
        loop.start()
        val delays = List(6) { next() }.filterIsInstance<Standing.Failed>().map { it.seconds }
        loop.stop()
        assertEquals(listOf(1L, 2L, 1L), delays)
    }

    @Test
    fun `stop does not wait until it is tried again`() {
        val loop = AgentLoop({ Failing(EdvitError("no", "x")) }, heard::add)
        loop.start()
        assertEquals(listOf(Standing.Starting, Standing.Failed("no", 1)), listOf(next(), next()))
        val began = System.nanoTime()
        loop.stop()
        assertTrue(System.nanoTime() - began < 900_000_000)
        assertEquals(Standing.Off, next())
    }
}

class PairingMulticastTest {
    private val hold = FakeHold()
    private val facts = Facts("a".repeat(64), "phone", "1", "fake/1", 1)

    private fun announced(
        pair: Int,
        announcer: Announcer,
    ) = PairingMulticast(announcer, hold).announce(facts, InetAddress.getLoopbackAddress(), 1, pair)

    @Test
    fun `multicast is heard while it waits to be paired, and not a moment longer`() {
        val open = announced(5) { _, _, _, _ -> Closeable {} }
        assertEquals(1, hold.held)
        open.close()
        assertEquals(0, hold.held)
        announced(0) { _, _, _, _ -> Closeable {} }.use { assertEquals(0, hold.held) }
    }

    @Test
    fun `what goes wrong does not leave it held`() {
        assertThrows(IOException::class.java) { announced(5) { _, _, _, _ -> throw IOException("no") } }
        assertEquals(0, hold.held)
        val open = announced(5) { _, _, _, _ -> Closeable { throw IOException("no goodbye") } }
        assertThrows(IOException::class.java) { open.close() }
        assertEquals(0, hold.held)
    }
}

@Timeout(30)
class ChildProofTest {
    private var ended = false

    private fun verdict(answer: ((Verdict?) -> Unit) -> Unit): Verdict =
        ChildProof({ _, _, done ->
            Thread { answer(done) }.start()
            Closeable { ended = true }
        }, seconds = 1).verify(Path("part.tflite"), Path("vector"))

    @Test
    fun `what the process says is the verdict`() {
        assertEquals(42, verdict { it(Verdict("", 42)) }.microseconds)
        assertEquals("wrong", verdict { it(Verdict("wrong")) }.reason)
        assertTrue(ended)
    }

    @Test
    fun `a process that dies, and one that says nothing, are verdicts`() {
        assertEquals("part.tflite crashed the interpreter.", verdict { it(null) }.reason)
        ended = false
        assertEquals("part.tflite gave no answer to its test vector in 1 s.", verdict {}.reason)
        assertTrue(ended, "it must not go on")
    }
}

class QrCodesTest {
    private val word = "edvit1-" + Base64.getUrlEncoder().encodeToString(Random(1).nextBytes(54))

    /** A camera's picture of a code: grey, not quite straight, rows longer than the picture is wide. */
    private fun picture(text: String): Triple<ByteArray, Int, Int> {
        val matrix = QRCodeWriter().encode(text, BarcodeFormat.QR_CODE, 0, 0)
        val side = 480
        val stride = 512
        val random = Random(2)
        val luma = ByteArray(stride * (side - 1) + side)
        for (y in 0 until side) {
            for (x in 0 until side) {
                val column = ((x + 0.03 * y - 40) / 400 * matrix.width).toInt()
                val row = ((y - 0.03 * x - 30) / 400 * matrix.height).toInt()
                val dark = column in 0 until matrix.width && row in 0 until matrix.height && matrix[column, row]
                luma[y * stride + x] = ((if (dark) 70 else 180) + random.nextInt(-25, 26)).toByte()
            }
        }
        return Triple(luma, stride, side)
    }

    private fun found(text: String): String? = picture(text).let { (luma, stride, side) -> QrCodes.find(luma, stride, side, side) }

    @Test
    fun `a token is found in a picture`() {
        assertEquals(word, found(word))
        assertEquals(Scanned.Join(word), QrCodes.read(checkNotNull(found(word))))
    }

    @Test
    fun `a picture without a code has none`() {
        assertNull(QrCodes.find(Random(3).nextBytes(640 * 480), 640, 640, 480))
        assertNull(QrCodes.find(ByteArray(640 * 480), 640, 640, 480))
    }

    @Test
    fun `another code is answered with what to scan`() {
        val device = assertInstanceOf(Scanned.Other::class.java, QrCodes.read("edvit:pair?id=a&address=b&code=c"))
        assertTrue("another device's pairing code" in device.sentence)
        assertTrue("no join token" in assertInstanceOf(Scanned.Other::class.java, QrCodes.read("https://example.org")).sentence)
    }
}
