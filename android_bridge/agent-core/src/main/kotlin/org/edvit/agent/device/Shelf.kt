package org.edvit.agent.device

import com.google.protobuf.ByteString
import org.edvit.agent.EdvitError
import org.edvit.agent.bundle.InputSpec
import org.edvit.agent.bundle.Manifest
import org.edvit.agent.engine.Engine
import org.edvit.agent.quote
import org.edvit.agent.unhex
import org.edvit.rpc.Generation
import org.edvit.rpc.Holding
import org.edvit.rpc.InferRequest

/**
 * One sub-model: which variant (a file name in the manifest), and its engine, or why it has none.
 *
 * `sha256` and `vector` are the SHA-256 of its flatbuffer and of its test vector; `microseconds` is the median of one picture.
 */
data class Held(
    val variant: String,
    val sha256: String,
    val vector: String,
    val format: String,
    val memoryBytes: Long,
    val engine: Engine? = null,
    val reason: String = "",
    val microseconds: Int = 0,
)

/** The sub-models of one bundle, by id; `digest` is its manifest's SHA-256. Replaced whole, never changed. */
data class Served(
    val bundle: String,
    val version: Long,
    val digest: String,
    val input: InputSpec,
    val held: Map<String, Held>,
) {
    constructor(manifest: Manifest, digest: String, held: Map<String, Held>) :
        this(manifest.name, manifest.version, digest, manifest.input, held)

    /** Whether any of it serves. */
    val serving: Boolean get() = held.values.any { it.engine != null }

    /** The manifest's SHA-256 as the wire has it. */
    val digestBytes: ByteString get() = ByteString.copyFrom(checkNotNull(unhex(digest)))

    /**
     * The engine of a sub-model.
     *
     * @throws EdvitError `device.submodel`: it is not here, or did not pass its test vector.
     */
    fun engine(submodel: String): Engine {
        val held = held[submodel] ?: throw EdvitError("sub-model ${quote(submodel)} is not on this device", "device.submodel")
        return held.engine ?: throw EdvitError("$submodel does not serve: ${held.reason}", "device.submodel")
    }

    /** The same without engines. */
    fun resting(reason: String): Served = copy(held = held.mapValues { (_, one) -> one.copy(engine = null, reason = reason) })

    /** What to say of it in Hello. */
    fun holdings(): List<Holding> =
        held.toSortedMap().map { (submodel, one) ->
            Holding
                .newBuilder()
                .setSubmodel(submodel)
                .setSha256(one.sha256)
                .setFormat(one.format)
                .setServing(one.engine != null)
                .setReason(one.reason)
                .setMemoryBytes(one.memoryBytes)
                .setMicroseconds(one.microseconds)
                .build()
        }
}

/**
 * All that a device holds: the bundle it has settled for, and one that is on trial beside it (decision 0030).
 *
 * Requests name their bundle, so both may serve at once and no answer is of both.
 */
data class Shelf(
    val settled: Served? = null,
    val trial: Served? = null,
) {
    /** The settled bundle, or the one on trial where the settled one serves nothing. */
    val first: Served? get() = if (trial?.serving == true && settled?.serving != true) trial else settled

    /** The bundles that are there. */
    val generations: List<Served> get() = listOfNotNull(settled, trial)

    /**
     * The bundle that a request names.
     *
     * @throws EdvitError `device.version`: it is not here.
     */
    fun asked(request: InferRequest): Served =
        generations.find { served ->
            served.bundle == request.bundle &&
                served.version == request.bundleVersion &&
                (request.manifest.isEmpty || request.manifest == served.digestBytes)
        } ?: throw EdvitError(
            "this device serves ${first?.let { "${it.bundle} version ${it.version}" } ?: "no bundle"}, " +
                "not ${quote(request.bundle)} version ${request.bundleVersion}",
            "device.version",
        )

    /** What is loaded, by the SHA-256 of its flatbuffer: the same bytes are loaded once. */
    fun loaded(): Map<String, Held> = generations.flatMap { it.held.values }.filter { it.engine != null }.associateBy { it.sha256 }

    /** What to say of all of it in Hello. */
    fun say(): List<Generation> =
        generations.map { served ->
            Generation
                .newBuilder()
                .setBundle(served.bundle)
                .setVersion(served.version)
                .setManifest(served.digestBytes)
                .setSettled(served === settled)
                .addAllHoldings(served.holdings())
                .build()
        }

    /** End the engines that `but` has not taken over. */
    fun close(but: Shelf = Shelf()) {
        val kept = but.loaded().values.map { it.engine }
        loaded()
            .values
            .mapNotNull { it.engine }
            .filter { it !in kept }
            .forEach(Engine::close)
    }
}
