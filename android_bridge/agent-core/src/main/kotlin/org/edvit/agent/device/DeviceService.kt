package org.edvit.agent.device

import com.google.protobuf.ByteString
import com.google.protobuf.UnsafeByteOperations
import org.edvit.agent.EdvitError
import org.edvit.agent.bundle.InputSpec
import org.edvit.agent.engine.Accelerator
import org.edvit.agent.engine.Pending
import org.edvit.agent.engine.Runtime
import org.edvit.agent.engine.Timed
import org.edvit.agent.policy.Pause
import org.edvit.agent.quote
import org.edvit.agent.rpc.PROTOCOL
import org.edvit.agent.rpc.Parts
import org.edvit.agent.rpc.checkProtocol
import org.edvit.agent.trust.Pairing
import org.edvit.rpc.HelloReply
import org.edvit.rpc.HelloRequest
import org.edvit.rpc.InferReply
import org.edvit.rpc.InferRequest
import org.edvit.rpc.InstallReply
import org.edvit.rpc.InstallRequest
import org.edvit.rpc.Output
import org.edvit.rpc.Picture
import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.atomic.AtomicBoolean
import java.util.logging.Logger

/**
 * What a device says of itself, `kind` of its machine.
 *
 * `energyJoules` and `joulesPerMac` only matter against those of the other devices.
 */
data class Facts(
    val id: String,
    val name: String,
    val software: String,
    val runtime: String,
    val memoryBytes: Long,
    val energyJoules: Double = 1000.0,
    val joulesPerMac: Double = 1e-9,
    val accelerator: Accelerator = Accelerator(),
    val kind: String = "${System.getProperty("os.arch")} ${System.getProperty("os.name")}",
    val cores: Int =
        java.lang.Runtime
            .getRuntime()
            .availableProcessors(),
) {
    constructor(id: String, name: String, software: String, runtime: Runtime, memoryBytes: Long) :
        this(id, name, software, runtime.name, memoryBytes, accelerator = runtime.accelerator)
}

/**
 * A device's side of the protocol: hello, install, infer.
 *
 * `pause` says why it must not work now, or null; a device that pauses stays a member and says why it does not answer.
 */
class DeviceService(
    private val facts: Facts,
    shelf: Shelf,
    private val installer: Installer,
    private val pause: () -> Pause? = { null },
) : Closeable {
    private val installing = AtomicBoolean()

    // Two at once with one id are two holders of one key (decision 0025).
    private val instance = ByteString.copyFrom(Pairing.randomBytes(INSTANCE_BYTES))

    /** What the device holds at this moment. */
    @Volatile
    var shelf: Shelf = shelf
        private set

    /** End the threads of the sub-models. */
    override fun close() = shelf.close()

    /**
     * Say what this device is and holds.
     *
     * @throws EdvitError `protocol`: to an aggregator of another age.
     */
    fun hello(request: HelloRequest): HelloReply {
        checkProtocol(request.protocol)
        val shelf = shelf
        val reply =
            HelloReply
                .newBuilder()
                .setProtocol(PROTOCOL)
                .setId(facts.id)
                .setName(facts.name)
                .setSoftware(facts.software)
                .setRuntime(facts.runtime)
                .setAccelerator(facts.accelerator.name)
                .setAcceleratorReason(facts.accelerator.reason)
                .setMemoryBytes(facts.memoryBytes)
                .setEnergyJoules(facts.energyJoules)
                .setJoulesPerMac(facts.joulesPerMac)
                .addAllGenerations(shelf.say())
                .addAllTargets(facts.accelerator.targets)
                .setInstance(instance)
                .setKind(facts.kind)
                .setCores(facts.cores)
        shelf.first?.let { reply.setBundle(it.bundle).setBundleVersion(it.version).addAllHoldings(it.holdings()) }
        return reply.build()
    }

    /** Take one sub-model, or settle; what served before goes on until the new one has proved itself. */
    fun install(
        parts: Parts<InstallRequest>,
        reply: (InstallReply) -> Unit,
    ) {
        val mine = installing.compareAndSet(false, true)
        try {
            if (!mine) throw EdvitError("another sub-model is being installed: try again", "device.busy")
            checkAwake()
            installer.install(parts, shelf, ::swap, reply)
        } catch (error: EdvitError) {
            log.warning("refused: ${error.message}")
            reply(
                InstallReply
                    .newBuilder()
                    .setStep(InstallReply.Step.REFUSED)
                    .setReason(error.message)
                    .setCode(error.code)
                    .build(),
            )
        } finally {
            if (mine) installing.set(false)
        }
    }

    private fun swap(after: Shelf) {
        val before = shelf
        shelf = after
        before.close(but = after)
    }

    /**
     * Run the named sub-models on one picture, and tell `done` the answer from the thread of the last one.
     *
     * @throws EdvitError it pauses (`policy.*`), another bundle or version (`device.version`), a sub-model that is not here
     * or does not serve (`device.submodel`), or a picture of another shape (`device.picture`).
     */
    fun infer(
        request: InferRequest,
        done: (Result<InferReply>) -> Unit,
    ): Pending {
        checkAwake()
        val served = shelf.asked(request)
        val engines = request.submodelsList.map(served::engine)
        val image = image(request.picture, served.input)
        val answer =
            InferReply
                .newBuilder()
                .setRequestId(request.requestId)
                .setBundleVersion(served.version)
                .setManifest(served.digestBytes)
        if (engines.isEmpty()) done(Result.success(answer.build()))
        val gathering = Gathering(engines.size) { done(it.map { outputs -> filled(answer, request.submodelsList, outputs) }) }
        val pending = engines.mapIndexed { index, engine -> engine.run(image) { gathering.put(index, it) } }
        return Pending { pending.forEach(Pending::cancel) }
    }

    private fun checkAwake() {
        pause()?.let { throw EdvitError(it.reason, it.code) }
    }

    private fun filled(
        answer: InferReply.Builder,
        submodels: List<String>,
        outputs: List<Timed>,
    ): InferReply {
        for ((submodel, timed) in submodels.zip(outputs)) {
            answer.addOutputs(
                Output
                    .newBuilder()
                    .setSubmodel(submodel)
                    .setFeature(littleEndian(timed.output.feature))
                    .setLogits(littleEndian(timed.output.logits))
                    .setMicroseconds(timed.microseconds),
            )
        }
        return answer.build()
    }

    private fun littleEndian(floats: FloatArray): ByteString {
        val bytes = ByteBuffer.allocate(Float.SIZE_BYTES * floats.size).order(ByteOrder.LITTLE_ENDIAN)
        bytes.asFloatBuffer().put(floats)
        return UnsafeByteOperations.unsafeWrap(bytes)
    }

    private fun image(
        picture: Picture,
        wanted: InputSpec,
    ): ByteArray {
        val problem =
            when {
                picture.codec != "raw" -> "pictures come raw, not as ${quote(picture.codec)}"
                picture.height != wanted.height || picture.width != wanted.width || picture.channels != wanted.channels ->
                    "the picture is ${picture.height} × ${picture.width} × ${picture.channels}, " +
                        "the sub-model takes ${wanted.height} × ${wanted.width} × ${wanted.channels}"
                picture.data.size() != wanted.bytes -> "the picture has ${picture.data.size()} bytes, ${wanted.bytes} belong there"
                else -> return picture.data.toByteArray()
            }
        throw EdvitError(problem, "device.picture")
    }

    private companion object {
        const val INSTANCE_BYTES = 16
        val log: Logger = Logger.getLogger(DeviceService::class.java.name)
    }
}

/** Waits for so many outputs, in any order, and tells once what came: all of them, or the first failure. */
private class Gathering(
    private var missing: Int,
    private val done: (Result<List<Timed>>) -> Unit,
) {
    private val outputs = arrayOfNulls<Timed>(missing)
    private var over = false

    @Synchronized
    fun put(
        index: Int,
        result: Result<Timed>,
    ) {
        if (over) return
        outputs[index] = result.getOrNull()
        missing -= 1
        over = missing == 0 || result.isFailure
        if (over) done(result.map { outputs.map { checkNotNull(it) } })
    }
}
