package org.edvit.phone

import org.edvit.agent.engine.Verdict
import java.io.Closeable
import java.nio.file.Path
import java.util.concurrent.SynchronousQueue
import java.util.concurrent.TimeUnit
import kotlin.io.path.name

/** Another process of the app, in which a flatbuffer may crash. */
fun interface Child {
    /** Run a flatbuffer on its test vector there, and tell `done` the verdict, or null when the process died; closing ends the process. */
    fun verify(
        flatbuffer: Path,
        vector: Path,
        done: (Verdict?) -> Unit,
    ): Closeable
}

/** The first run of a flatbuffer, in a process that may die of it: then, and when nothing is heard for long, that is the verdict. */
class ChildProof(
    private val child: Child,
    private val seconds: Long = TIMEOUT_SECONDS,
) {
    /** What came of it. */
    fun verify(
        flatbuffer: Path,
        vector: Path,
    ): Verdict {
        val heard = SynchronousQueue<Verdict>()
        val died = Verdict("${flatbuffer.name} crashed the interpreter.")
        // An answer that nobody waits for any more is dropped, so that nothing of the child waits either.
        return child.verify(flatbuffer, vector) { heard.offer(it ?: died, GRACE_SECONDS, TimeUnit.SECONDS) }.use {
            heard.poll(seconds, TimeUnit.SECONDS) ?: Verdict("${flatbuffer.name} gave no answer to its test vector in $seconds s.")
        }
    }

    private companion object {
        const val TIMEOUT_SECONDS = 120L
        const val GRACE_SECONDS = 1L
    }
}
