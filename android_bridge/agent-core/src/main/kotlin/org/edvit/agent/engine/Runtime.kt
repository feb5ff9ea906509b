package org.edvit.agent.engine

import java.io.Closeable
import java.nio.file.Path

/** What a sub-model says of one picture: two arrays of float32. */
class Output(
    val feature: FloatArray,
    val logits: FloatArray,
)

/** A sub-model that is loaded; one call at a time, from one thread. */
interface Model : Closeable {
    /**
     * Take a picture, uint8 [height × width × channels].
     *
     * @throws org.edvit.agent.EdvitError `model.run`.
     */
    fun run(image: ByteArray): Output
}

/** Whether a flatbuffer answers here as it did where it was made; `microseconds` is the median of one picture. */
class Verdict(
    val reason: String,
    val microseconds: Int = 0,
) {
    /** Whether it does. */
    val ok: Boolean get() = reason.isEmpty()
}

/** What computes beside the processor: its `name`, or an empty one and the `reason` why nothing does. */
data class Accelerator(
    val name: String = "",
    val reason: String = "this version uses the CPU only",
) {
    /** What a manifest's variant may be made for to run here. */
    val targets: List<String> get() = listOfNotNull("any", "cpu", name.ifEmpty { null })
}

/** What a device needs of an interpreter. */
interface Runtime {
    /** The interpreter and its version, "ai-edge-litert/2.3.0". */
    val name: String

    /** What computes beside the processor. */
    val accelerator: Accelerator get() = Accelerator()

    /**
     * Load a flatbuffer.
     *
     * @throws org.edvit.agent.EdvitError `model.load`.
     */
    fun load(flatbuffer: Path): Model

    /** Run a flatbuffer on its test vector where a crash does no harm. */
    fun verify(
        flatbuffer: Path,
        vector: Path,
    ): Verdict
}
