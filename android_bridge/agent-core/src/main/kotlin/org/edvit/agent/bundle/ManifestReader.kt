package org.edvit.agent.bundle

import org.edvit.agent.quote
import java.math.BigInteger
import java.time.DateTimeException
import java.time.Instant
import java.time.LocalDateTime
import java.time.ZoneOffset

/** `manifest.json` as bytes, and the manifest it holds: checked once, here. */
object ManifestReader {
    private const val SCHEMA = 1L
    private val PATH_KEYS = setOf("file", "test_vector")

    private val schema by lazy {
        val stream = checkNotNull(javaClass.getResourceAsStream("/manifest.schema.json")) { "the jar lacks the schema" }
        Schema(Json(StrictJson.load(stream.use { it.readBytes() })).members)
    }

    /**
     * The manifest that the exact bytes of a `manifest.json` hold.
     *
     * @throws org.edvit.agent.EdvitError with the code of the cause: `bundle.json`, `bundle.limit`, `bundle.version`,
     * `bundle.path`, `bundle.schema`, or those of [ManifestChecks].
     */
    fun parse(data: ByteArray): Manifest {
        val document = StrictJson.load(data)
        checkVersion(document)
        schema.violation(document)?.let { throw refusal(it) }
        val manifest = manifest(Json(document))
        ManifestChecks.check(manifest)
        return manifest
    }

    private fun checkVersion(document: Any?) {
        if (document !is Map<*, *> || "schema" !in document) throw refused("schema", "manifest.json is not a bundle's manifest")
        val version = document["schema"]
        if (version != BigInteger.valueOf(SCHEMA)) {
            throw refused(
                "version",
                "The bundle's manifest has schema ${quote(version)} and this version reads schema $SCHEMA",
                "install a newer edvit-tf, or export the bundle with this one",
            )
        }
    }

    private fun refusal(violation: Violation) =
        if (violation.rule == "pattern" && violation.path.substringAfterLast('.') in PATH_KEYS) {
            refused(
                "path",
                "${violation.path} in the manifest is ${quote(violation.value)}, which is no safe file name inside a bundle",
            )
        } else {
            refused("schema", "The manifest is not valid, ${quote(violation.path)} breaks the rule ${violation.rule}")
        }

    private fun manifest(json: Json): Manifest =
        Manifest(
            name = json["name"].text,
            version = json["version"].whole,
            expires = json["expires"].orNull?.let { day(it.text) },
            classes = json["classes"].texts,
            input = input(json["input"]),
            submodels = json["submodels"].list.map(::submodel),
            fusion =
                FusionSpec(
                    entry(json["fusion"]),
                    json["fusion"]["order"].texts,
                    json["fusion"]["calibration"].list.map { it["missing"].whole },
                ),
            files = json["files"].list.map(::entry),
            teacher = json["teacher"]["file"].text,
            single = json["single"].orNull?.let { it["file"].text },
        )

    private fun input(json: Json) =
        InputSpec(
            json["height"].whole.toInt(),
            json["width"].whole.toInt(),
            json["channels"].whole.toInt(),
            json["sound"].orNull?.let(::sound),
        )

    private fun sound(json: Json) =
        SoundSpec(
            sampleRate = json["sample_rate"].number,
            window = json["window"].number,
            hop = json["hop"].number,
            fft = json["fft"].number,
            lowHz = json["low_hz"].number,
            highHz = json["high_hz"].number,
            lowDb = json["low_db"].number,
            highDb = json["high_db"].number,
        )

    private fun submodel(json: Json) = Submodel(json["id"].text, json["classes"].texts, json["variants"].list.map(::variant))

    private fun variant(json: Json) =
        Variant(
            file = json["file"].text,
            sha256 = json["sha256"].text,
            bytes = json["bytes"].whole,
            format = json["format"].text,
            target = json["target"].text,
            runtimes = json["runtimes"].members.mapValues { (_, minimum) -> Json(minimum).text },
            arenaBytes = json["arena_bytes"].whole,
            inputs = json["inputs"].list.map(::tensor),
            outputs = json["outputs"].list.map(::tensor),
            testVector = json["test_vector"].text,
        )

    private fun tensor(json: Json) = TensorSpec(json["name"].text, json["shape"].list.map { it.whole }, json["dtype"].text)

    private fun entry(json: Json) = FileEntry(json["file"].text, json["sha256"].text, json["bytes"].whole)

    // Not Instant.parse: that takes 24:00:00, which Python refuses.
    private fun day(text: String): Instant {
        val day =
            try {
                LocalDateTime.parse(text.removeSuffix("Z"))
            } catch (error: DateTimeException) {
                throw refused("expires", "The manifest expires on $text, which is no date", cause = error)
            }
        if (day.year < 1) throw refused("expires", "The manifest expires on $text, which is no date")
        return day.toInstant(ZoneOffset.UTC)
    }
}

/** A document of [StrictJson] that its schema has passed. */
@JvmInline
private value class Json(
    private val value: Any?,
) {
    @Suppress("UNCHECKED_CAST")
    val members: Map<String, Any?> get() = value as Map<String, Any?>
    val list: List<Json> get() = (value as List<*>).map(::Json)
    val texts: List<String> get() = list.map { it.text }
    val text: String get() = value as String
    val whole: Long get() = (value as Number).toLong()
    val number: Double get() = (value as Number).toDouble()
    val orNull: Json? get() = if (value == null) null else this

    operator fun get(key: String): Json = Json(members[key])
}
