package org.edvit.agent.trust

import org.edvit.agent.EdvitError
import org.edvit.agent.hex
import org.edvit.agent.sha256
import java.security.GeneralSecurityException
import java.security.PublicKey
import java.security.cert.CertificateFactory
import java.security.cert.X509Certificate
import java.security.interfaces.ECPublicKey
import java.time.Instant
import java.time.ZoneOffset
import java.time.format.DateTimeFormatter

/**
 * Who is who on the wire (`edvit_tf/rpc/certificates.py` and decision 0020).
 *
 * A device's id is the SHA-256 of its P-256 key. Its fleet's authority certifies the id as a DNS name, and an aggregator as
 * [AGGREGATOR].
 */
object Certificates {
    /** The name in an aggregator's certificate. */
    const val AGGREGATOR = "aggregator.edvit"
    private const val LARGEST_BYTES = 16 * 1024
    private const val DNS_NAME = 2
    private val DAY = DateTimeFormatter.ofPattern("yyyy-MM-dd").withZone(ZoneOffset.UTC)
    private val MINUTE = DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm").withZone(ZoneOffset.UTC)

    /** The lower-case hex SHA-256 (64 characters) of a public key's DER SubjectPublicKeyInfo. */
    fun idOf(key: PublicKey): String = hex(sha256(key.encoded))

    /** The SHA-256 of a certificate's DER (32 bytes). */
    fun fingerprint(certificate: X509Certificate): ByteArray = sha256(certificate.encoded)

    /**
     * Read a foreign certificate (DER) of a P-256 key.
     *
     * @throws EdvitError `trust.certificate`: it is too large, no certificate, or one of another kind of key.
     */
    fun parse(der: ByteArray): X509Certificate {
        val wrong = EdvitError("what came is no certificate", "trust.certificate")
        if (der.size > LARGEST_BYTES) throw wrong
        val certificate =
            try {
                CertificateFactory.getInstance("X.509").generateCertificate(der.inputStream()) as? X509Certificate
            } catch (_: GeneralSecurityException) {
                null
            }
        // PEM would be taken too, and bytes behind the end.
        if (certificate == null || !certificate.encoded.contentEquals(der)) throw wrong
        if (!isP256(certificate.publicKey)) throw EdvitError("the certificate is not for a P-256 key", "trust.certificate")
        return certificate
    }

    /**
     * Hold a certificate that was issued to the device `id` against its authority and the clock.
     *
     * @throws EdvitError `trust.certificate`: another authority's, or for another key; `trust.clock`: not valid now.
     */
    fun checkIssued(
        certificate: X509Certificate,
        authority: X509Certificate,
        id: String,
        now: Instant,
    ) {
        try {
            if (certificate.issuerX500Principal != authority.subjectX500Principal) throw GeneralSecurityException("another issuer")
            certificate.verify(authority.publicKey)
        } catch (error: GeneralSecurityException) {
            throw EdvitError("the certificate is not from this fleet", "trust.certificate", error)
        }
        if (idOf(certificate.publicKey) != id) throw EdvitError("the certificate is for another device", "trust.certificate")
        checkClock(certificate, now)
    }

    /**
     * Refuse a certificate that is not valid at `now`; the clock may be what is wrong, so it is named.
     *
     * @throws EdvitError `trust.clock`.
     */
    fun checkClock(
        certificate: X509Certificate,
        now: Instant,
    ) {
        val begins = certificate.notBefore.toInstant()
        val ends = certificate.notAfter.toInstant()
        if (now in begins..ends) return
        val state = if (now > ends) "has expired" else "is not valid yet"
        throw EdvitError(
            "this device's certificate $state: it is valid from ${DAY.format(begins)} to ${DAY.format(ends)}, and the clock " +
                "here says ${MINUTE.format(now)} UTC: set the clock if that is wrong",
            "trust.clock",
        )
    }

    /** Whether a certificate names an aggregator. */
    fun isAggregator(certificate: X509Certificate): Boolean =
        certificate.subjectAlternativeNames.orEmpty().any { (kind, name) -> kind == DNS_NAME && name == AGGREGATOR }

    private fun isP256(key: PublicKey): Boolean =
        key is ECPublicKey && key.params.order == P256.order && key.params.curve == P256.curve && key.params.generator == P256.generator
}
