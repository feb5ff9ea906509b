package org.edvit.phone

/** What the device is doing. */
sealed interface Standing {
    /** Nothing: its owner has not started it, or has stopped it. */
    data object Off : Standing

    /** It opens its store and proves what is in it. */
    data object Starting : Standing

    /** It waits for its fleet; `code` is empty when it has a join token. */
    data class Waits(
        val name: String,
        val code: String,
        val link: String,
    ) : Standing

    /** It serves. */
    data class Serves(
        val name: String,
        val port: Int,
    ) : Standing

    /** It failed, for a reason that is a sentence, and starts again in so many seconds. */
    data class Failed(
        val reason: String,
        val seconds: Long,
    ) : Standing
}
