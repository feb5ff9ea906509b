package org.edvit.phone

import org.edvit.agent.EdvitError
import org.edvit.agent.engine.Accelerator
import org.edvit.agent.engine.Model
import org.edvit.agent.engine.Output
import org.tensorflow.lite.Interpreter
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Path
import kotlin.io.path.name

/** The TFLite interpreter on the processor, with XNNPACK; LiteRT has it under its old name. */
fun tfLite(
    name: String,
    proof: ChildProof,
) = PhoneRuntime(
    name,
    Accelerator(reason = "the processor computes: NNAPI is deprecated and not used, and no GPU was chosen"),
    proof,
    ::TfLiteModel,
)

private class TfLiteModel(
    flatbuffer: Path,
) : Model {
    private val name = flatbuffer.name
    private val interpreter: Interpreter
    private val signature: String
    private val input: ByteBuffer
    private val outputs: Map<String, ByteBuffer>

    init {
        interpreter = clearly("load") { Interpreter(flatbuffer.toFile(), Interpreter.Options().setUseXNNPACK(true).setNumThreads(1)) }
        try {
            signature = interpreter.signatureKeys.singleOrNull() ?: throw EdvitError("$name is no sub-model", "model.load")
            val names = interpreter.getSignatureOutputs(signature).toSet()
            if (names != setOf("feature", "logits")) throw EdvitError("$name is no sub-model", "model.load")
            input = direct(interpreter.getInputTensorFromSignature("image", signature).numBytes())
            outputs = names.associateWith { direct(interpreter.getOutputTensorFromSignature(it, signature).numBytes()) }
        } catch (error: EdvitError) {
            interpreter.close()
            throw error
        } catch (error: IllegalArgumentException) {
            interpreter.close()
            throw EdvitError("$name is no sub-model: ${error.message}", "model.load", error)
        }
    }

    override fun run(image: ByteArray): Output {
        if (image.size != input.capacity()) {
            throw EdvitError("$name takes ${input.capacity()} bytes, not ${image.size}", "model.run")
        }
        input.again()
        input.put(image)
        (outputs.values + input).forEach { it.again() }
        clearly("run") { interpreter.runSignature(mapOf("image" to input), outputs, signature) }
        return Output(floats("feature"), floats("logits"))
    }

    override fun close() = interpreter.close()

    private fun floats(output: String): FloatArray {
        val numbers = outputs.getValue(output).apply { again() }.asFloatBuffer()
        return FloatArray(numbers.remaining()).also(numbers::get)
    }

    // Not a ByteBuffer's own rewind: Java has had that since release 9, and Android 8 has not.
    private fun Buffer.again() {
        rewind()
    }

    private fun direct(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

    /** The interpreter throws what it likes. */
    private fun <T> clearly(
        what: String,
        work: () -> T,
    ): T =
        try {
            work()
        } catch (error: RuntimeException) {
            throw EdvitError("TFLite could not $what $name: ${error.message}", "model.$what", error)
        }
}
