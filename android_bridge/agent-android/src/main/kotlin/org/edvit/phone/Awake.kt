package org.edvit.phone

/**
 * Keeps the processor awake while the device serves on a charging phone, and never on its battery.
 *
 * On a battery the phone sleeps when it likes to; its fleet notices an answer that is late and does without.
 */
class Awake(
    private val processor: Hold,
) {
    private var held = false

    /** Look at how things are; as often as one likes. */
    @Synchronized
    fun look(
        situation: Situation,
        charging: Boolean,
    ) {
        val wanted =
            charging && situation.pauses.isEmpty() && (situation.standing is Standing.Serves || situation.standing is Standing.Waits)
        if (wanted == held) return
        if (wanted) processor.take() else processor.release()
        held = wanted
    }

    /** Let go of it, whatever goes on. */
    @Synchronized
    fun release() {
        if (held) processor.release()
        held = false
    }
}
