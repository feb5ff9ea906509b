package org.edvit.agent.bundle

import org.bouncycastle.crypto.params.Ed25519PublicKeyParameters
import org.bouncycastle.crypto.signers.Ed25519Signer
import org.edvit.agent.EdvitError
import org.edvit.agent.hex
import org.edvit.agent.sha256
import java.time.Instant

/**
 * The key that signs a fleet's bundles: Ed25519 (RFC 8032), 32 raw bytes.
 *
 * By Bouncy Castle, because a phone's own libraries may be too old for it.
 */
class BundleKey(
    private val raw: ByteArray,
) {
    private val parameters: Ed25519PublicKeyParameters

    init {
        require(raw.size == Ed25519PublicKeyParameters.KEY_SIZE) { "an Ed25519 key has 32 bytes" }
        parameters = Ed25519PublicKeyParameters(raw)
    }

    /** The 32 raw bytes. */
    val bytes: ByteArray get() = raw.clone()

    /** The lower-case hex SHA-256 of the raw bytes. */
    val id: String get() = hex(sha256(raw))

    /** Whether a signature (64 bytes) over some bytes is by this key. */
    fun signed(
        data: ByteArray,
        signature: ByteArray,
    ): Boolean {
        if (signature.size != SIGNATURE_BYTES) return false
        val verifier = Ed25519Signer()
        verifier.init(false, parameters)
        verifier.update(data, 0, data.size)
        return verifier.verifySignature(signature)
    }

    companion object {
        /** Bytes of a signature. */
        const val SIGNATURE_BYTES = 64
    }
}

/** The owner's decision that the manifest with the hash `manifest` may replace versions up to `newest`. */
data class Rollback(
    val bundle: String,
    val newest: Long,
    val manifest: String,
)

/** What a device installs: only what its fleet's owner signed, not expired, not older without a signed decision. */
object Signature {
    private const val LARGEST_DECISION_BYTES = 4096
    private val ROLLBACK = "edvit-tf rollback 1\n".toByteArray()

    /**
     * Hold a signature against a manifest's exact bytes.
     *
     * @throws EdvitError `trust.unsigned` or `trust.signature`.
     */
    fun verify(
        key: BundleKey,
        manifest: ByteArray,
        signature: ByteArray,
    ) {
        if (signature.isEmpty()) {
            throw EdvitError("the bundle is not signed: deploy it with the fleet's keys", "trust.unsigned")
        }
        if (!key.signed(manifest, signature)) {
            throw EdvitError("the bundle is not signed by this fleet, or was changed after that", "trust.signature")
        }
    }

    /**
     * Read a decision that the fleet's owner signed: a signature, then JSON.
     *
     * @throws EdvitError `trust.rollback`: another's signature, or no decision.
     */
    fun readRollback(
        key: BundleKey,
        data: ByteArray,
    ): Rollback {
        val wrong = EdvitError("the decision to roll back is not signed by this fleet", "trust.rollback")
        if (data.size !in BundleKey.SIGNATURE_BYTES..LARGEST_DECISION_BYTES) throw wrong
        val document = data.copyOfRange(BundleKey.SIGNATURE_BYTES, data.size)
        if (!key.signed(ROLLBACK + document, data.copyOf(BundleKey.SIGNATURE_BYTES))) throw wrong
        val fields =
            try {
                StrictJson.load(document) as? Map<*, *>
            } catch (_: EdvitError) {
                null
            }
        val newest = fields?.get("newest") as? Number ?: throw wrong
        return Rollback("${fields["bundle"]}", newest.toLong(), "${fields["manifest"]}")
    }

    /**
     * Decide whether a device may install from a manifest whose exact bytes are `data`.
     *
     * `newest` is the highest version of this bundle that the device has served, 0 for none; `rollback` a signed decision that
     * lets an older version replace a newer one, or nothing.
     *
     * @throws EdvitError `trust.unsigned`, `trust.signature`, `trust.expired`, `trust.older` or `trust.rollback`.
     */
    fun admit(
        key: BundleKey,
        manifest: Manifest,
        data: ByteArray,
        signature: ByteArray,
        newest: Long,
        rollback: ByteArray = ByteArray(0),
        now: Instant = Instant.now(),
    ) {
        verify(key, data, signature)
        if (manifest.expires != null && now > manifest.expires) {
            throw EdvitError(
                "the manifest of ${manifest.name} version ${manifest.version} expired on ${manifest.expires}, and the clock " +
                    "here says $now: deploy a newer version, or set the clock if that is wrong",
                "trust.expired",
            )
        }
        if (manifest.version >= newest) return
        if (rollback.isEmpty()) {
            throw EdvitError(
                "${manifest.name} version ${manifest.version} is older than version $newest, which this device has served: " +
                    "only the fleet's owner can go back, with `edvit-tf fleet rollback`",
                "trust.older",
            )
        }
        val decision = readRollback(key, rollback)
        if (decision.bundle != manifest.name || decision.manifest != hex(sha256(data))) {
            throw EdvitError("the decision to roll back is for another bundle", "trust.rollback")
        }
        if (decision.newest < newest) {
            throw EdvitError(
                "the decision to roll back covers versions up to ${decision.newest}, and this device has served version $newest",
                "trust.rollback",
            )
        }
    }
}
