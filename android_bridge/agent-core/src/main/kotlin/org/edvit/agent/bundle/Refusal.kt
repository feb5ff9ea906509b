package org.edvit.agent.bundle

import org.edvit.agent.EdvitError

private const val REPAIR = "make the bundle again with edvit-tf export, or fetch it again"

/** The error with the code `bundle.<of>`: what is wrong, and what to do. */
internal fun refused(
    of: String,
    problem: String,
    remedy: String = REPAIR,
    cause: Throwable? = null,
) = EdvitError("$problem: $remedy.", "bundle.$of", cause)
