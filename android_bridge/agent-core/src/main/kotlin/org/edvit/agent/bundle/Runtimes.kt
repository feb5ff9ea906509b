package org.edvit.agent.bundle

/** Whether the interpreter that a device has is among those that a variant names in the manifest. */
object Runtimes {
    private val NUMBERS = Regex("[0-9]{1,9}(?:\\.[0-9]{1,9}){0,3}")
    private const val PARTS = 4

    /**
     * Tell whether `runtime` ("ai-edge-litert/2.3.0") is in `runtimes` (minimum version by name).
     *
     * Of a version only the leading numbers count; one that has none is never accepted.
     */
    fun accept(
        runtimes: Map<String, String>,
        runtime: String,
    ): Boolean {
        val minimum = runtimes[runtime.substringBefore('/')] ?: return false
        val version = NUMBERS.matchAt(runtime.substringAfter('/', ""), 0)?.value ?: return false
        return order(version).zip(order(minimum)).firstOrNull { (has, needs) -> has != needs }?.let { (has, needs) -> has > needs } ?: true
    }

    private fun order(version: String): List<Long> {
        val numbers =
            NUMBERS
                .matchAt(version, 0)
                ?.value
                .orEmpty()
                .split('.')
                .mapNotNull { it.toLongOrNull() }
        return numbers + List(PARTS - numbers.size) { 0L }
    }
}
