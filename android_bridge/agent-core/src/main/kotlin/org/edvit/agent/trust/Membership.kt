package org.edvit.agent.trust

import com.google.gson.GsonBuilder
import org.edvit.agent.EdvitError
import org.edvit.agent.bundle.BundleKey
import org.edvit.agent.bundle.StrictJson
import org.edvit.agent.store.Store
import java.security.cert.X509Certificate
import java.time.Instant
import java.util.Base64

/** The fleet's authority, what it issued to this device, and the key that signs the fleet's bundles. */
class Membership(
    val authority: X509Certificate,
    val certificate: X509Certificate,
    val bundleKey: BundleKey,
) {
    /** Write it down, whole or not at all. */
    fun save(store: Store) {
        val parts = mapOf("authority" to authority.encoded, "certificate" to certificate.encoded, "bundle_key" to bundleKey.bytes)
        val document = parts.mapValues { (_, bytes) -> Base64.getEncoder().encodeToString(bytes) }
        store.write(
            FILE,
            GsonBuilder()
                .setPrettyPrinting()
                .create()
                .toJson(document)
                .toByteArray(),
        )
    }

    companion object {
        /** Where it is in the store. */
        const val FILE = "membership.json"

        /**
         * Read what was written down; null for a device that is of no fleet yet.
         *
         * @throws EdvitError `trust.membership`: the file holds something else.
         */
        fun load(store: Store): Membership? {
            val data = store.read(FILE) ?: return null
            val wrong = { cause: Exception ->
                EdvitError("${store.path.resolve(FILE)} is broken: delete it, and join the fleet again", "trust.membership", cause)
            }
            return try {
                val document = StrictJson.load(data) as? Map<*, *> ?: throw IllegalArgumentException("no object")
                val part = { name: String -> Base64.getDecoder().decode(document[name] as? String ?: "") }
                Membership(Certificates.parse(part("authority")), Certificates.parse(part("certificate")), BundleKey(part("bundle_key")))
            } catch (error: EdvitError) {
                throw wrong(error)
            } catch (error: IllegalArgumentException) {
                throw wrong(error)
            }
        }

        /** Forget the fleet, and the key and so the id with `newKey`; tells whether there was a fleet. */
        fun leave(
            store: Store,
            newKey: Boolean,
        ): Boolean {
            val member = store.read(FILE) != null
            store.forget(FILE)
            if (newKey) store.forget(Identity.KEY_FILE)
            return member
        }
    }
}

/** What a member shows at each handshake, and how it takes a newer certificate while it serves. */
class Shown(
    private val store: Store,
    val identity: Identity,
    membership: Membership,
) {
    /** What is shown now. */
    @Volatile
    var membership: Membership = membership
        private set

    /**
     * Take a certificate (DER) that ends later; return the one that is shown, also for empty `newer`.
     *
     * @throws EdvitError it is not from this fleet, not for this device, not valid now, or ends earlier.
     */
    @Synchronized
    fun renew(newer: ByteArray): ByteArray {
        if (newer.isNotEmpty()) {
            val certificate = Certificates.parse(newer)
            Certificates.checkIssued(certificate, membership.authority, identity.id, Instant.now())
            if (certificate.notAfter < membership.certificate.notAfter) {
                throw EdvitError("the certificate ends earlier than the one that is shown", "trust.certificate")
            }
            val next = Membership(membership.authority, certificate, membership.bundleKey)
            next.save(store)
            membership = next
        }
        return membership.certificate.encoded
    }
}
