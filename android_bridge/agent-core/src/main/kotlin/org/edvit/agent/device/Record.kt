package org.edvit.agent.device

import com.google.gson.GsonBuilder
import org.edvit.agent.EdvitError
import org.edvit.agent.bundle.StrictJson

/** One bundle: the SHA-256 of its manifest, and the variant (a file name) of each sub-model. */
data class Entry(
    val manifest: String,
    val submodels: Map<String, String>,
)

/**
 * The small file that says what a device has installed; the Python device writes the same.
 *
 * With `resting` the settled bundle made room for the one on trial.
 */
data class Record(
    val settled: Entry?,
    val trial: Entry?,
    val resting: Boolean,
) {
    /** What is on a shelf. */
    constructor(shelf: Shelf) : this(
        entry(shelf.settled),
        entry(shelf.trial),
        shelf.trial?.serving == true && shelf.settled?.serving != true,
    )

    /** As the file has it. */
    fun toJson(): ByteArray =
        GsonBuilder()
            .serializeNulls()
            .setPrettyPrinting()
            .create()
            .toJson(this)
            .toByteArray()

    companion object {
        /** Its name in the store. */
        const val FILE = "installed.json"

        /**
         * Read what [toJson] wrote.
         *
         * @throws EdvitError it is something else.
         */
        fun read(data: ByteArray): Record {
            val wrong = EdvitError("$FILE in the store is broken", "device.record")
            val document = StrictJson.load(data) as? Map<*, *> ?: throw wrong
            val entry = { value: Any? ->
                (value as Map<*, *>?)?.let { fields ->
                    Entry("${fields["manifest"]}", (fields["submodels"] as Map<*, *>).entries.associate { "${it.key}" to "${it.value}" })
                }
            }
            return try {
                Record(entry(document["settled"]), entry(document["trial"]), document["resting"] == true)
            } catch (_: ClassCastException) {
                throw wrong
            } catch (_: NullPointerException) {
                throw wrong
            }
        }

        private fun entry(served: Served?): Entry? = served?.let { Entry(it.digest, it.held.mapValues { (_, held) -> held.variant }) }
    }
}
