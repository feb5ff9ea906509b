package org.edvit.phone

import org.edvit.agent.policy.Pause

/** All that decides whether the device answers now. */
data class Situation(
    val standing: Standing,
    val pauses: List<Pause> = emptyList(),
    val missing: List<Permission> = emptyList(),
    val network: Boolean = true,
    val mayDoze: Boolean = false,
)

/** Why it is or is not running: a title of a word or two, and a sentence for each reason. */
data class Explanation(
    val title: String,
    val lines: List<String>,
)

/** Say it to the phone's owner; what the owner can change says how. */
fun explain(now: Situation): Explanation {
    if (now.standing == Standing.Off) return Explanation("Stopped", listOf("This phone is no device of a fleet now: press Start."))
    if (now.missing.isNotEmpty()) {
        return Explanation(
            "Not running",
            now.missing.map { "Android does not allow it. It is needed ${it.why}: press Start, and allow it." },
        )
    }
    if (!now.network) {
        return Explanation(
            "Not reachable",
            listOf("This phone is in no network: connect it to the one that the fleet is in."),
        )
    }
    return when (val standing = now.standing) {
        Standing.Off, Standing.Starting -> Explanation("Starting", listOf("It looks through its sub-models and proves each of them."))
        is Standing.Failed -> Explanation("Not running", listOf("${sentence(standing.reason)} It tries again in ${standing.seconds} s."))
        is Standing.Waits -> Explanation("Waiting", listOf(waiting(standing)) + dozing(now))
        is Standing.Serves -> serving(standing, now)
    }
}

private fun waiting(standing: Standing.Waits): String =
    if (standing.code.isEmpty()) {
        "It has a join token, and any `edvit-tf fleet deploy` of that fleet takes it."
    } else {
        "Its code is ${standing.code}. On the aggregator: edvit-tf fleet adopt '${standing.name}'"
    }

private fun serving(
    standing: Standing.Serves,
    now: Situation,
): Explanation {
    if (now.pauses.isNotEmpty()) return Explanation("Paused", now.pauses.map { sentence(it.reason) })
    return Explanation("Running", listOf("${standing.name} answers at port ${standing.port}.") + dozing(now))
}

private fun dozing(now: Situation): List<String> =
    if (now.mayDoze) {
        listOf("Android may put this phone to sleep: leave it charging, or take this app out of battery optimisation.")
    } else {
        emptyList()
    }

private fun sentence(text: String): String = text.replaceFirstChar { it.uppercase() }.trimEnd('.') + "."
