package org.edvit.agent.device

import java.io.IOException
import kotlin.io.path.Path
import kotlin.io.path.readText
import kotlin.io.path.useLines

/** How many bytes this process may still take, before the system or a limit ends it. */
fun interface AvailableMemory {
    /** The figure at this moment. */
    fun bytes(): Long
}

/** Of Linux: the least of what the machine has available and what its control group leaves. */
object LinuxMemory : AvailableMemory {
    private val MEMINFO = Path("/proc/meminfo")
    private val GROUP = Path("/sys/fs/cgroup")
    private const val KILOBYTE = 1024L

    override fun bytes(): Long = minOf(figure("MemAvailable") ?: Long.MAX_VALUE, group() ?: Long.MAX_VALUE).coerceAtLeast(0)

    /** Half of the machine's memory: what a device gives to sub-models unless it is told otherwise. */
    fun halfOfMachine(): Long = (figure("MemTotal") ?: Runtime.getRuntime().maxMemory()) / 2

    private fun figure(name: String): Long? =
        try {
            MEMINFO.useLines { lines ->
                lines
                    .find { it.startsWith("$name:") }
                    ?.filter { it.isDigit() }
                    ?.toLongOrNull()
                    ?.times(KILOBYTE)
            }
        } catch (_: IOException) {
            null
        }

    private fun group(): Long? =
        try {
            val limit =
                GROUP
                    .resolve("memory.max")
                    .readText()
                    .trim()
                    .toLongOrNull()
            limit?.minus(
                GROUP
                    .resolve("memory.current")
                    .readText()
                    .trim()
                    .toLong(),
            )
        } catch (_: IOException) {
            null
        }
}
