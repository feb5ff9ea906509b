package org.edvit.agent

/**
 * A failure with a sentence for people and a code for programs.
 *
 * The codes are those of the Python device (`edvit_tf/errors.py`), so that an aggregator need not know which it talks to.
 */
open class EdvitError(
    override val message: String,
    val code: String,
    cause: Throwable? = null,
) : Exception(message, cause)

/** A bad argument (exit status 2). */
class UsageError(
    message: String,
) : EdvitError(message, "usage")
