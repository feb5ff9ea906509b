package org.edvit.agent.trust

import com.google.protobuf.ByteString
import com.google.protobuf.InvalidProtocolBufferException
import org.edvit.agent.EdvitError
import org.edvit.agent.bundle.BundleKey
import org.edvit.agent.rpc.PROTOCOL
import org.edvit.agent.rpc.Parts
import org.edvit.agent.rpc.Silence
import org.edvit.agent.rpc.checkProtocol
import org.edvit.rpc.PairChallenge
import org.edvit.rpc.PairOffer
import org.edvit.rpc.PairReply
import org.edvit.rpc.PairRequest
import java.security.MessageDigest
import java.time.Instant

/** What a device that is of no fleet yet says of itself. */
class About(
    val name: String,
    val runtime: String,
    val kind: String,
    val memoryBytes: Long,
    val cores: Int,
)

/**
 * The device's side of becoming a member: conversations in which the aggregator proves itself first.
 *
 * `secret` is a code's letters or the secret of `token`; `onMember` is called once, with what to write down.
 */
class PairingService(
    private val identity: Identity,
    private val about: About,
    secret: ByteArray,
    private val token: Token?,
    private val onMember: (Membership) -> Unit,
) {
    private val key = Pairing.stretch(secret, identity.id)
    private var wrong = 0
    private var done = false

    /** Hold one conversation; a refusal is its last reply, and changes nothing. */
    fun pair(
        parts: Parts<PairRequest>,
        reply: (PairReply) -> Unit,
    ) {
        try {
            converse(parts, reply)
        } catch (error: EdvitError) {
            reply(PairReply.newBuilder().setRefused(error.message).build())
        }
    }

    private fun converse(
        parts: Parts<PairRequest>,
        reply: (PairReply) -> Unit,
    ) {
        checkOpen()
        val offered = take(parts, PairRequest.PartCase.OFFER).offer.toByteArray()
        val offer = readOffer(offered)
        val authority = Certificates.parse(offer.authority.toByteArray())
        if (token != null && !MessageDigest.isEqual(Certificates.fingerprint(authority), token.fingerprint)) {
            throw EdvitError("this device was given a token of another fleet", "trust.token")
        }
        val challenge = challenge()
        reply(PairReply.newBuilder().setChallenge(ByteString.copyFrom(challenge)).build())
        val theirs = take(parts, PairRequest.PartCase.PROOF).proof.toByteArray()
        checkProof(theirs, offered, challenge)
        val proof = Pairing.proof(key, "device", offered, challenge)
        reply(PairReply.newBuilder().setProof(ByteString.copyFrom(proof)).build())
        val certificate = Certificates.parse(take(parts, PairRequest.PartCase.CERTIFICATE).certificate.toByteArray())
        Certificates.checkIssued(certificate, authority, identity.id, Instant.now())
        join(Membership(authority, certificate, BundleKey(offer.bundleKey.toByteArray())))
        reply(PairReply.newBuilder().setDone(true).build())
    }

    // Several may converse at once; the count, and who is first, are one at a time.
    @Synchronized
    private fun checkProof(
        theirs: ByteArray,
        offered: ByteArray,
        challenge: ByteArray,
    ) {
        checkOpen()
        if (!MessageDigest.isEqual(theirs, Pairing.proof(key, "aggregator", offered, challenge))) {
            wrong += 1
            throw EdvitError("the code is wrong", "trust.code")
        }
    }

    @Synchronized
    private fun join(membership: Membership) {
        checkOpen()
        onMember(membership)
        done = true
    }

    @Synchronized
    private fun checkOpen() {
        if (done) throw EdvitError("this device has joined a fleet already", "trust.closed")
        if (wrong >= Pairing.WRONG_CODES) {
            throw EdvitError(
                "pairing is closed after ${Pairing.WRONG_CODES} wrong codes: start the device again for a new one",
                "trust.closed",
            )
        }
    }

    private fun challenge(): ByteArray =
        PairChallenge
            .newBuilder()
            .setProtocol(PROTOCOL)
            .setNonce(ByteString.copyFrom(Pairing.randomBytes(Pairing.NONCE_BYTES)))
            .setPublicKey(ByteString.copyFrom(identity.publicKey.encoded))
            .setName(about.name)
            .setTokenId(token?.id.orEmpty())
            .setRuntime(about.runtime)
            .setKind(about.kind)
            .setMemoryBytes(about.memoryBytes)
            .setCores(about.cores)
            .build()
            .toByteArray()

    private fun readOffer(data: ByteArray): PairOffer {
        val wrong = { cause: Exception? -> EdvitError("what came is no offer", "trust.offer", cause) }
        val offer =
            try {
                PairOffer.parseFrom(data).also { BundleKey(it.bundleKey.toByteArray()) }
            } catch (error: InvalidProtocolBufferException) {
                throw wrong(error)
            } catch (error: IllegalArgumentException) {
                throw wrong(error)
            }
        checkProtocol(offer.protocol)
        if (offer.nonce.size() != Pairing.NONCE_BYTES) throw wrong(null)
        return offer
    }

    private fun take(
        parts: Parts<PairRequest>,
        wanted: PairRequest.PartCase,
    ): PairRequest {
        val request =
            try {
                parts.next(ANSWER_SECONDS) ?: throw EdvitError("the conversation ended early", "trust.offer")
            } catch (silence: Silence) {
                throw EdvitError("${silence.message}", "trust.offer", silence)
            }
        if (request.partCase != wanted) throw EdvitError("the ${wanted.name.lowercase()} belongs here", "trust.offer")
        return request
    }

    private companion object {
        const val ANSWER_SECONDS = 10.0
    }
}
