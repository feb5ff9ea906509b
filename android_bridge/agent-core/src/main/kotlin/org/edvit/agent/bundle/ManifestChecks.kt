package org.edvit.agent.bundle

import org.edvit.agent.quote

/** What a schema cannot say of a manifest: that its parts agree with each other. */
internal object ManifestChecks {
    private val RESERVED = listOf("manifest.", "report.")
    private const val LONGEST_SECONDS = 300

    /**
     * Hold the parts of a manifest against each other.
     *
     * @throws org.edvit.agent.EdvitError `bundle.duplicate`, `bundle.path` (a reserved name), `bundle.unlisted`,
     * `bundle.classes`, `bundle.sound`, `bundle.tensors`, `bundle.order` or `bundle.calibration`.
     */
    fun check(manifest: Manifest) {
        checkNames(manifest)
        checkListed(manifest)
        checkClasses(manifest)
        manifest.input.sound?.let { checkSound(it, manifest.input) }
        manifest.submodels.forEach { checkTensors(manifest.input, it) }
        checkFusion(manifest)
    }

    private fun checkNames(manifest: Manifest) {
        unique("sub-model", manifest.submodels.map { it.id })
        for (submodel in manifest.submodels) {
            unique("variant of ${submodel.id}", submodel.variants.map { "${it.format} for ${it.target}" })
        }
        val names = manifest.everyFile().map { it.file }
        // Names that differ by case alone are one file on some memory cards.
        unique("file", names.map { it.lowercase() })
        names.find { name -> RESERVED.any { name.lowercase().startsWith(it) } }?.let {
            throw refused("path", "The manifest lists ${quote(it)}, a name that is kept for the manifest and the report")
        }
    }

    private fun unique(
        kind: String,
        names: List<String>,
    ) {
        val seen = HashSet<String>()
        names.find { !seen.add(it) }?.let { throw refused("duplicate", "The manifest names the $kind ${quote(it)} twice") }
    }

    private fun checkListed(manifest: Manifest) {
        val listed = manifest.files.map { it.file }.toSet()
        val wanted = manifest.submodels.flatMap { it.variants }.map { it.testVector } + listOfNotNull(manifest.teacher, manifest.single)
        wanted.find { it !in listed }?.let {
            throw refused("unlisted", "The manifest refers to ${quote(it)} and gives no hash for it under files")
        }
    }

    private fun checkClasses(manifest: Manifest) {
        val known = manifest.classes.toSet()
        for (submodel in manifest.submodels) {
            submodel.classes.find { it !in known }?.let {
                throw refused("classes", "${submodel.id} answers for ${quote(it)}, which is none of the bundle's classes")
            }
        }
        val covered = manifest.submodels.flatMap { it.classes }.toSet()
        manifest.classes.find { it !in covered }?.let {
            throw refused("classes", "No sub-model answers for the class ${quote(it)}")
        }
    }

    private fun checkSound(
        sound: SoundSpec,
        input: InputSpec,
    ) {
        val problem =
            when {
                sound.window > sound.fft -> "A frame of sound does not fit into its fft"
                sound.lowHz >= sound.highHz || sound.highHz > sound.sampleRate / 2 ->
                    "The sound's bands must rise to at most half the sample rate"
                sound.lowDb >= sound.highDb -> "The sound's black is not below its white"
                input.width * sound.hop > LONGEST_SECONDS * sound.sampleRate ->
                    "The sound is longer than the $LONGEST_SECONDS seconds that are allowed"
                else -> return
            }
        throw refused("sound", problem)
    }

    private fun checkTensors(
        input: InputSpec,
        submodel: Submodel,
    ) {
        val picture = listOf(1L, input.height.toLong(), input.width.toLong(), input.channels.toLong())
        val labels = submodel.classes.size.toLong()
        for (variant in submodel.variants) {
            checkTensor(variant, variant.inputs.single(), TensorSpec("image", picture, "uint8"))
            for ((given, name) in variant.outputs.sortedBy { it.name }.zip(listOf("feature", "logits"))) {
                checkTensor(variant, given, TensorSpec(name, listOf(1L, given.shape.last()), "float32"))
            }
            if (variant.width("logits") !in labels..labels + 1) {
                throw refused("tensors", "${variant.file} gives ${variant.width("logits")} logits for $labels classes")
            }
            if (variant.width("feature") != submodel.variants.first().width("feature")) {
                throw refused("tensors", "The variants of ${submodel.id} give features of different lengths, so no fusion fits both")
            }
        }
    }

    private fun checkTensor(
        variant: Variant,
        given: TensorSpec,
        wanted: TensorSpec,
    ) {
        if (given != wanted) {
            throw refused(
                "tensors",
                "${variant.file} has a tensor ${quote(given.name)} of ${given.dtype} ${given.shape} where " +
                    "${wanted.name} of ${wanted.dtype} ${wanted.shape} belongs",
            )
        }
    }

    private fun checkFusion(manifest: Manifest) {
        val ids = manifest.submodels.map { it.id }
        if (manifest.fusion.order.sorted() != ids.sorted()) {
            throw refused("order", "The fusion and the bundle must have the same sub-models")
        }
        if (manifest.fusion.missing.sorted() != ids.indices.map { it.toLong() }) {
            throw refused(
                "calibration",
                "The fusion's calibration must have each number of missing sub-models from 0 to ${ids.size - 1} once",
            )
        }
    }
}
