package org.edvit.app

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import org.edvit.agent.EdvitError
import org.edvit.agent.engine.Model
import org.edvit.agent.engine.Output
import org.edvit.phone.ChildProof
import org.edvit.phone.PhoneRuntime
import java.nio.file.Path
import kotlin.io.path.name

/**
 * LiteRT 2 on the phone's GPU. What the GPU cannot take, LiteRT gives to the processor.
 *
 * A phone whose GPU answers wrongly, or crashes, fails the test vector in a process of its own, and the sub-model goes elsewhere.
 */
fun liteRtGpu(
    name: String,
    proof: ChildProof,
) = PhoneRuntime(name, org.edvit.agent.engine.Accelerator("gpu", ""), proof, ::CompiledSubmodel)

private class CompiledSubmodel(
    flatbuffer: Path,
) : Model {
    private val name = flatbuffer.name
    private val open = ArrayList<AutoCloseable>()
    private val model: CompiledModel
    private val image: TensorBuffer
    private val outputs: Map<String, TensorBuffer>

    init {
        try {
            val options = CompiledModel.Options(Accelerator.GPU, Accelerator.CPU)
            model = CompiledModel.create("$flatbuffer", options).also(open::add)
            image = model.createInputBuffer("image").also(open::add)
            outputs = listOf("feature", "logits").associateWith { model.createOutputBuffer(it).also(open::add) }
        } catch (error: LiteRtException) {
            close()
            throw EdvitError("LiteRT could not load $name on the GPU: ${error.message}", "model.load", error)
        }
    }

    override fun run(image: ByteArray): Output =
        try {
            // The bytes are uint8; LiteRT's 8-bit write copies them as they are.
            this.image.writeInt8(image)
            model.run(mapOf("image" to this.image), outputs)
            Output(outputs.getValue("feature").readFloat(), outputs.getValue("logits").readFloat())
        } catch (error: LiteRtException) {
            throw EdvitError("LiteRT could not run $name on the GPU: ${error.message}", "model.run", error)
        }

    override fun close() {
        open.asReversed().forEach(AutoCloseable::close)
        open.clear()
    }
}
