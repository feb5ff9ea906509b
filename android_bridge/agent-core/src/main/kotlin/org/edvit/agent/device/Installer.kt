package org.edvit.agent.device

import org.edvit.agent.EdvitError
import org.edvit.agent.bundle.BundleKey
import org.edvit.agent.bundle.FileEntry
import org.edvit.agent.bundle.Manifest
import org.edvit.agent.bundle.ManifestReader
import org.edvit.agent.bundle.Runtimes
import org.edvit.agent.bundle.Signature
import org.edvit.agent.bundle.Submodel
import org.edvit.agent.bundle.Variant
import org.edvit.agent.engine.Engine
import org.edvit.agent.engine.Runtime
import org.edvit.agent.hex
import org.edvit.agent.quote
import org.edvit.agent.rpc.Parts
import org.edvit.agent.rpc.Silence
import org.edvit.agent.sha256
import org.edvit.agent.store.Store
import org.edvit.rpc.InstallHeader
import org.edvit.rpc.InstallReply
import org.edvit.rpc.InstallReply.Step
import org.edvit.rpc.InstallRequest
import org.edvit.rpc.Release
import java.util.concurrent.Callable
import java.util.concurrent.ExecutionException
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import java.util.logging.Logger
import kotlin.io.path.readBytes

/** What a header announces. */
private class Offer(
    val manifest: Manifest,
    val manifestBytes: ByteArray,
    val submodel: Submodel,
    val variant: Variant,
) {
    val digest: String = hex(sha256(manifestBytes))
    val vector: FileEntry = manifest.testVector(variant)

    /** Size and SHA-256 of the flatbuffer and the test vector, in the order in which they come. */
    val blobs: List<Pair<Long, String>> get() = listOf(variant.bytes to variant.sha256, vector.bytes to vector.sha256)
    val total: Long get() = variant.bytes + vector.bytes
}

/**
 * Taking a sub-model: every check before a byte is stored, and the test vector before it serves.
 *
 * A failure at any point leaves the store and what is served as they were. `memoryBytes` is what sub-models may take together;
 * only what `key` signed is installed.
 */
class Installer(
    private val store: Store,
    private val runtime: Runtime,
    private val memoryBytes: Long,
    private val key: BundleKey,
    private val available: AvailableMemory = LinuxMemory,
) {
    private val prover: ExecutorService = Executors.newCachedThreadPool { Thread(it, "prove").apply { isDaemon = true } }

    /**
     * Receive, check and prove one sub-model, record it, then hand what is on the shelf to `swap`.
     *
     * A device's first bundle is settled at once. A later one is on trial until `settle`; the settled one stays beside it, or
     * rests when there is no memory for both and the header allows that.
     *
     * @throws EdvitError with the reason; nothing has changed.
     */
    fun install(
        parts: Parts<InstallRequest>,
        shelf: Shelf,
        swap: (Shelf) -> Unit,
        reply: (InstallReply) -> Unit,
    ) {
        val first = next(parts)
        when (first.partCase) {
            InstallRequest.PartCase.SETTLE -> settle(hex(first.settle.manifest.toByteArray()), shelf, swap, reply)
            InstallRequest.PartCase.RELEASE -> release(first.release, shelf, swap, reply)
            InstallRequest.PartCase.HEADER -> take(first.header, parts, shelf, swap, reply)
            else -> throw EdvitError("an installation begins with its header", "device.stream")
        }
    }

    private fun take(
        header: InstallHeader,
        parts: Parts<InstallRequest>,
        shelf: Shelf,
        swap: (Shelf) -> Unit,
        reply: (InstallReply) -> Unit,
    ) {
        val offer = offer(header)
        admit(header, offer, shelf.settled)
        val base = room(offer, shelf, header.replaces)
        val fresh: Held
        val after: Shelf
        try {
            val start = if (header.resumes) start(offer) else 0
            reply(step(Step.RECEIVING, start))
            receive(parts, offer, start) { reply(step(Step.RECEIVING, it)) }
            fresh = alive({ reply(step(Step.VERIFYING, offer.total)) }) { prove(offer.variant, offer.vector.sha256, shelf) }
            after = with(base, offer, fresh)
            store.add(offer.manifestBytes)
            store.write(Record.FILE, Record(after).toJson())
        } catch (error: EdvitError) {
            // After an interruption the sender may go on where it stopped.
            if (error.code != INTERRUPTED) store.keepOnly(needed(shelf))
            throw error
        }
        swap(after)
        store.keepOnly(needed(after))
        log.info("serving ${offer.submodel.id} of ${offer.manifest.name} version ${offer.manifest.version}")
        reply(step(Step.SERVING, offer.total).toBuilder().setMicroseconds(fresh.microseconds).build())
    }

    /** Keep one of two bundles; if it rested it proves itself anew. */
    private fun settle(
        digest: String,
        shelf: Shelf,
        swap: (Shelf) -> Unit,
        reply: (InstallReply) -> Unit,
    ) {
        val kept = held(digest, shelf)
        val after = Shelf(settled = kept)
        store.write(Record.FILE, Record(after).toJson())
        swap(after)
        store.keepOnly(needed(after))
        if (!kept.serving) swap(Shelf(settled = alive({ reply(step(Step.VERIFYING)) }) { wake(kept, after) }))
        log.info("settled for ${kept.bundle} version ${kept.version}")
        reply(step(Step.SERVING))
    }

    /** Let go of some sub-models of one bundle; the bundle itself stays, also without any. */
    private fun release(
        release: Release,
        shelf: Shelf,
        swap: (Shelf) -> Unit,
        reply: (InstallReply) -> Unit,
    ) {
        val digest = hex(release.manifest.toByteArray())
        held(digest, shelf)
        val rest = { served: Served? ->
            served?.let { if (it.digest == digest) it.copy(held = it.held - release.submodelsList.toSet()) else it }
        }
        val after = Shelf(rest(shelf.settled), rest(shelf.trial))
        store.write(Record.FILE, Record(after).toJson())
        swap(after)
        store.keepOnly(needed(after))
        log.info("let go of ${release.submodelsList.sorted().joinToString { quote(it) }}")
        reply(step(Step.SERVING))
    }

    /**
     * What was installed before the device stopped, each sub-model proved again.
     *
     * One that fails is held without serving, with the reason; a record that cannot be read means an empty device, which an
     * aggregator fills again.
     */
    fun restore(): Shelf {
        val written = store.read(Record.FILE) ?: return Shelf()
        val record: Record
        var shelf: Shelf
        try {
            record = Record.read(written)
            shelf = Shelf(listed(record.settled), listed(record.trial))
        } catch (error: EdvitError) {
            log.warning("starting empty: ${error.message}")
            return Shelf()
        }
        if (!record.resting) shelf = shelf.copy(settled = shelf.settled?.let { wake(it, shelf) })
        return shelf.copy(trial = shelf.trial?.let { wake(it, shelf) })
    }

    /** What a record names, without engines. */
    private fun listed(entry: Entry?): Served? {
        if (entry == null) return null
        val manifest = manifest(entry.manifest)
        val held = entry.submodels.mapValues { (id, file) -> held(manifest, variant(manifest.submodel(id), file)) }
        return Served(manifest, entry.manifest, held).resting(RESTING)
    }

    /** Load the sub-models of one bundle beside what is loaded on the shelf, as far as the memory goes. */
    private fun wake(
        served: Served,
        shelf: Shelf,
    ): Served {
        val manifest = manifest(served.digest)
        val awake = LinkedHashMap<String, Held>()
        for ((id, held) in served.held) {
            val loaded = shelf.loaded().values + awake.values.filter { it.engine != null }
            awake[id] = proved(held, variant(manifest.submodel(id), held.variant), loaded.sumOf { it.memoryBytes }, shelf)
        }
        return served.copy(held = awake)
    }

    private fun manifest(digest: String): Manifest {
        if (!store.intact(digest)) throw EdvitError("the manifest in the store is missing or changed", "device.hash")
        return ManifestReader.parse(store.blob(digest).readBytes())
    }

    private fun proved(
        held: Held,
        variant: Variant,
        taken: Long,
        shelf: Shelf,
    ): Held =
        try {
            checkRuntime(variant)
            if (taken + held.memoryBytes > memoryBytes) throw noMemory(held.variant, held.memoryBytes, taken)
            checkAvailable(held.variant, held.memoryBytes)
            if (!store.intact(held.sha256) || !store.intact(held.vector)) {
                throw EdvitError("its file in the store is missing or changed", "device.hash")
            }
            prove(variant, held.vector, shelf)
        } catch (error: EdvitError) {
            log.warning("${held.variant} does not serve: ${error.message}")
            held.copy(engine = null, reason = error.message)
        }

    /** Decide whether a manifest may come in at all. */
    private fun admit(
        header: InstallHeader,
        offer: Offer,
        settled: Served?,
    ) {
        val newest = settled?.takeIf { it.bundle == offer.manifest.name }?.version ?: 0
        Signature.admit(
            key,
            offer.manifest,
            offer.manifestBytes,
            header.signature.toByteArray(),
            newest,
            header.rollback.toByteArray(),
        )
        checkRuntime(offer.variant)
    }

    /** The shelf as it may stay while the offer serves. */
    private fun room(
        offer: Offer,
        shelf: Shelf,
        replaces: Boolean,
    ): Shelf {
        val needed = offer.variant.memoryBytes
        if (offer.variant.sha256 !in shelf.loaded()) checkAvailable(offer.submodel.id, needed)
        val bases = mutableListOf(shelf)
        if (replaces && shelf.settled != null && shelf.settled.digest != offer.digest) {
            bases += shelf.copy(settled = shelf.settled.resting(RESTING))
        }
        val taken = { base: Shelf -> (without(base, offer).loaded() - offer.variant.sha256).values.sumOf { it.memoryBytes } }
        return bases.find { taken(it) + needed <= memoryBytes } ?: throw noMemory(offer.submodel.id, needed, taken(bases.last()))
    }

    private fun checkAvailable(
        what: String,
        needed: Long,
    ) {
        val free = available.bytes()
        if (needed > free) {
            throw EdvitError(
                "$what takes $needed bytes of memory and this machine has $free free now: " +
                    "stop other programs on it, or choose a smaller sub-model",
                "device.memory",
            )
        }
    }

    private fun checkRuntime(variant: Variant) {
        if (Runtimes.accept(variant.runtimes, runtime.name)) return
        val wanted =
            variant.runtimes
                .toSortedMap()
                .entries
                .joinToString(" or ") { (name, version) -> "$name $version" }
        throw EdvitError("format ${variant.format} needs $wanted, and this device runs ${runtime.name}", "device.runtime")
    }

    private fun noMemory(
        what: String,
        needed: Long,
        taken: Long,
    ) = EdvitError(
        "$what takes $needed bytes of memory, and of the $memoryBytes that this device gives $taken are taken",
        "device.memory",
    )

    /** How many bytes of an offer are here already. */
    private fun start(offer: Offer): Long {
        var start = 0L
        for ((size, sha256) in offer.blobs) {
            val there = store.received(size, sha256)
            start += there
            if (there < size) break
        }
        return start
    }

    /** Store the blobs, from byte `start` on. */
    private fun receive(
        parts: Parts<InstallRequest>,
        offer: Offer,
        start: Long,
        progress: (Long) -> Unit,
    ) {
        var received = start
        var before = 0L
        var rest = ByteArray(0)
        for ((size, sha256) in offer.blobs) {
            val after = (start - before).coerceIn(0, size)
            before += size
            if (after == size && store.intact(sha256)) continue
            store.receive(size, sha256, after).use { incoming ->
                while (incoming.missing > 0) {
                    val data = if (rest.isEmpty()) chunk(parts) else rest
                    val taken = minOf(incoming.missing, data.size.toLong()).toInt()
                    rest = data.copyOfRange(taken, data.size)
                    incoming.write(data.copyOf(taken))
                    received += taken
                    progress(received)
                }
                incoming.keep()
            }
        }
        if (rest.isNotEmpty()) throw EdvitError("more bytes came than the manifest announces", "device.size")
    }

    /** Run the test vector in a child process, then load the flatbuffer here, unless it serves already. */
    private fun prove(
        variant: Variant,
        vector: String,
        shelf: Shelf,
    ): Held {
        val held = Held(variant.file, variant.sha256, vector, variant.format, variant.memoryBytes)
        shelf.loaded()[variant.sha256]?.let { return held.copy(engine = it.engine, microseconds = it.microseconds) }
        val flatbuffer = store.blob(variant.sha256)
        val verdict = runtime.verify(flatbuffer, store.blob(vector))
        if (!verdict.ok) throw EdvitError("the test vector failed: ${verdict.reason}", "device.vector")
        val model =
            try {
                runtime.load(flatbuffer)
            } catch (error: EdvitError) {
                throw EdvitError(error.message, "device.load", error)
            }
        // The caller may have left while it was loaded: then nobody would ever let go of it.
        if (Thread.interrupted()) {
            model.close()
            throw EdvitError("the aggregator went away", INTERRUPTED)
        }
        return held.copy(engine = Engine(model), microseconds = verdict.microseconds)
    }

    /** Do something that takes a while, and give a sign of life at once and then every second. */
    private fun <T> alive(
        sign: () -> Unit,
        work: () -> T,
    ): T {
        val proof = prover.submit(Callable(work))
        try {
            while (true) {
                sign()
                try {
                    return proof.get(SIGN_OF_LIFE_SECONDS, TimeUnit.SECONDS)
                } catch (_: TimeoutException) {
                    continue
                }
            }
        } catch (error: ExecutionException) {
            throw error.cause ?: error
        } finally {
            proof.cancel(true)
        }
    }

    /** Every blob that the shelf needs at the next start, and all variants of a bundle on trial. */
    private fun needed(shelf: Shelf): Set<String> {
        val held = shelf.generations.flatMap { it.held.values }.flatMap { listOf(it.sha256, it.vector) }
        val trial = shelf.trial?.let { manifest(it.digest).everyFile().map { entry -> entry.sha256 } }.orEmpty()
        return (held + trial + shelf.generations.map { it.digest }).toSet()
    }

    private fun held(
        digest: String,
        shelf: Shelf,
    ): Served =
        shelf.generations.find { it.digest == digest }
            ?: throw EdvitError("this device does not hold that bundle", "device.version")

    private fun held(
        manifest: Manifest,
        variant: Variant,
    ) = Held(variant.file, variant.sha256, manifest.testVector(variant).sha256, variant.format, variant.memoryBytes)

    private fun offer(header: InstallHeader): Offer {
        val data = header.manifest.toByteArray()
        val manifest = ManifestReader.parse(data)
        val submodel = manifest.submodel(header.submodel)
        return Offer(manifest, data, submodel, variant(submodel, header.variant))
    }

    private fun variant(
        submodel: Submodel,
        file: String,
    ): Variant =
        submodel.variants.find { it.file == file }
            ?: throw EdvitError("${submodel.id} has no variant ${quote(file)}", "device.variant")

    /** The shelf with room for an offer: what the offer replaces is gone. */
    private fun without(
        shelf: Shelf,
        offer: Offer,
    ): Shelf {
        val rest = { served: Served -> served.copy(held = served.held - offer.submodel.id) }
        val fresh = Served(offer.manifest, offer.digest, emptyMap())
        return when (offer.digest) {
            (shelf.settled?.digest ?: offer.digest) -> shelf.copy(settled = shelf.settled?.let(rest) ?: fresh)
            shelf.trial?.digest -> shelf.copy(trial = shelf.trial?.let(rest))
            else -> shelf.copy(trial = fresh)
        }
    }

    /** The shelf with the offer on it. */
    private fun with(
        shelf: Shelf,
        offer: Offer,
        fresh: Held,
    ): Shelf {
        val room = without(shelf, offer)
        val put = { served: Served? -> served?.let { it.copy(held = it.held + (offer.submodel.id to fresh)) } }
        return if (room.settled?.digest == offer.digest) room.copy(settled = put(room.settled)) else room.copy(trial = put(room.trial))
    }

    private fun chunk(parts: Parts<InstallRequest>): ByteArray {
        val part = next(parts)
        if (part.partCase != InstallRequest.PartCase.CHUNK || part.chunk.isEmpty) {
            throw EdvitError("after the header only bytes may come", "device.stream")
        }
        return part.chunk.toByteArray()
    }

    private fun next(parts: Parts<InstallRequest>): InstallRequest =
        try {
            parts.next(CHUNK_SECONDS) ?: throw EdvitError("the sub-model ended before its last byte", INTERRUPTED)
        } catch (silence: Silence) {
            throw EdvitError("${silence.message}", INTERRUPTED, silence)
        }

    private fun step(
        step: Step,
        received: Long = 0,
    ): InstallReply =
        InstallReply
            .newBuilder()
            .setStep(step)
            .setReceivedBytes(received)
            .build()

    private companion object {
        // An aggregator that went away in the middle must not keep the next one out.
        const val CHUNK_SECONDS = 8.0

        // While a sub-model proves itself the aggregator hears that the device is alive.
        const val SIGN_OF_LIFE_SECONDS = 1L
        const val INTERRUPTED = "device.interrupted"
        const val RESTING = "it rests while another version is on trial: there is no memory for both"
        val log: Logger = Logger.getLogger(Installer::class.java.name)
    }
}
