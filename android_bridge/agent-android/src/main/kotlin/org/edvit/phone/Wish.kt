package org.edvit.phone

/** What may start the device. */
enum class Start {
    /** The owner pressed Start. */
    OWNER,

    /** The phone has started, or the app was replaced by a newer one. */
    SYSTEM,

    /** Android ended the app's process and starts its service again. */
    AGAIN,
}

/** Whether the owner wants the device to run: remembered, so that Stop also means not after the next start of the phone. */
class Wish(
    private val values: Values,
) {
    /** Whether it is wanted now. */
    val runs: Boolean get() = values[NAME] == "true"

    /** The owner pressed Stop. */
    fun stop() {
        values[NAME] = null
    }

    /** Whether it starts; who presses Start wants it to run from now on. */
    fun starts(start: Start): Boolean {
        if (start == Start.OWNER) values[NAME] = "true"
        return runs
    }

    private companion object {
        const val NAME = "runs"
    }
}
