package org.edvit.agent.rpc

import org.edvit.agent.EdvitError

/** The protocol that this side speaks. */
const val PROTOCOL = 1

/**
 * Accept this protocol and the one before it.
 *
 * @throws EdvitError `protocol`: for any other; the sentence says which side to update.
 */
fun checkProtocol(theirs: Int) {
    if (theirs in PROTOCOL - 1..PROTOCOL) return
    val update = if (theirs > PROTOCOL) "this side" else "the aggregator"
    throw EdvitError(
        "the aggregator speaks protocol $theirs and this side $PROTOCOL (or one older): update edvit-tf on $update",
        "protocol",
    )
}
