package org.edvit.phone

import org.edvit.agent.engine.Accelerator
import org.edvit.agent.engine.Model
import org.edvit.agent.engine.Runtime
import org.edvit.agent.engine.Verdict
import java.nio.file.Path

/**
 * A phone's runtime: `load` is how it takes a flatbuffer, which proves itself in a process of its own first.
 *
 * `name` is what the app ships and its version, "ai-edge-litert/2.3.2".
 */
class PhoneRuntime(
    override val name: String,
    override val accelerator: Accelerator,
    private val proof: ChildProof,
    private val load: (Path) -> Model,
) : Runtime {
    override fun load(flatbuffer: Path): Model = load.invoke(flatbuffer)

    override fun verify(
        flatbuffer: Path,
        vector: Path,
    ): Verdict = proof.verify(flatbuffer, vector)
}
