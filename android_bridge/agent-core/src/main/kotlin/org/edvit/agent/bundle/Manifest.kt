package org.edvit.agent.bundle

import org.edvit.agent.quote
import java.time.Instant

/** One input or output of a flatbuffer. */
data class TensorSpec(
    val name: String,
    val shape: List<Long>,
    val dtype: String,
)

/** A sub-model in one format; `runtimes` are minimum versions by the interpreter's name. */
data class Variant(
    val file: String,
    val sha256: String,
    val bytes: Long,
    val format: String,
    val target: String,
    val runtimes: Map<String, String>,
    val arenaBytes: Long,
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
    val testVector: String,
) {
    /** What a device needs to serve it: the flatbuffer, the delegate's packed copy of it, the arena. */
    val memoryBytes: Long get() = 2 * bytes + arenaBytes

    /** Numbers in the output `name`. */
    fun width(name: String): Long = outputs.first { it.name == name }.shape.last()
}

/** One part of the split teacher; `classes` are in the order of its logits. */
data class Submodel(
    val id: String,
    val classes: List<String>,
    val variants: List<Variant>,
)

/** A file of the bundle, with what it must hash to. */
data class FileEntry(
    val file: String,
    val sha256: String,
    val bytes: Long,
)

/** How sound becomes a picture; a device only checks that it is possible. */
data class SoundSpec(
    val sampleRate: Double,
    val window: Double,
    val hop: Double,
    val fft: Double,
    val lowHz: Double,
    val highHz: Double,
    val lowDb: Double,
    val highDb: Double,
)

/** The picture that every sub-model takes: uint8 [height, width, channels]. */
data class InputSpec(
    val height: Int,
    val width: Int,
    val channels: Int,
    val sound: SoundSpec?,
) {
    /** Bytes of a picture that is sent raw. */
    val bytes: Int get() = height * width * channels
}

/** What the aggregator runs; `missing` are the numbers of absent sub-models that it is calibrated for. */
data class FusionSpec(
    val entry: FileEntry,
    val order: List<String>,
    val missing: List<Long>,
)

/** Of `manifest.json` what a device reads. It never writes one: it keeps the exact bytes, unknown keys included. */
data class Manifest(
    val name: String,
    val version: Long,
    val expires: Instant?,
    val classes: List<String>,
    val input: InputSpec,
    val submodels: List<Submodel>,
    val fusion: FusionSpec,
    val files: List<FileEntry>,
    val teacher: String,
    val single: String?,
) {
    /**
     * The sub-model of that id.
     *
     * @throws org.edvit.agent.EdvitError `bundle.submodel`: there is none.
     */
    fun submodel(id: String): Submodel =
        submodels.find { it.id == id } ?: throw refused(
            "submodel",
            "Bundle $name has no sub-model ${quote(id)}",
            "choose one of ${submodels.joinToString { it.id }}",
        )

    /** Every file that the manifest answers for. */
    fun everyFile(): List<FileEntry> =
        submodels.flatMap { it.variants }.map { FileEntry(it.file, it.sha256, it.bytes) } + fusion.entry + files

    /** The test vector of a variant; [ManifestChecks] has seen to it that it is listed. */
    fun testVector(variant: Variant): FileEntry = files.first { it.file == variant.testVector }
}
