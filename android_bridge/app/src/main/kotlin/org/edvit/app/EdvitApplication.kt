package org.edvit.app

import org.edvit.agent.engine.Runtime
import org.edvit.phone.ChildProof
import org.edvit.phone.Choices
import org.edvit.phone.PhoneApplication
import org.edvit.phone.ProofProcess
import org.edvit.phone.tfLite

/** The app with LiteRT 2 in it: its interpreter for the processor, its compiled model for the GPU. */
class EdvitApplication : PhoneApplication() {
    private val proof by lazy { ChildProof(ProofProcess(this)) }

    override val software: String = BuildConfig.VERSION_NAME

    override fun runtime(choices: Choices): Runtime = if (choices.gpu) liteRtGpu(NAME, proof) else tfLite(NAME, proof)

    private companion object {
        // By this name the manifest of a bundle knows it.
        const val NAME = "ai-edge-litert/${BuildConfig.LITERT}"
    }
}
