package org.edvit.agent.trust

import org.bouncycastle.asn1.sec.SECNamedCurves
import org.edvit.agent.EdvitError
import org.edvit.agent.store.Store
import java.security.AlgorithmParameters
import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.KeyPairGenerator
import java.security.PublicKey
import java.security.interfaces.ECPrivateKey
import java.security.spec.ECGenParameterSpec
import java.security.spec.ECParameterSpec
import java.security.spec.ECPoint
import java.security.spec.ECPublicKeySpec
import java.security.spec.PKCS8EncodedKeySpec
import java.util.Base64

private const val CURVE = "secp256r1"

/** The curve of every certificate: gRPC's TLS in Python takes no Ed25519. */
internal val P256: ECParameterSpec =
    AlgorithmParameters.getInstance("EC").apply { init(ECGenParameterSpec(CURVE)) }.getParameterSpec(ECParameterSpec::class.java)

/** Who a device is: a P-256 key that never leaves its store, and the SHA-256 of the public half (`id`). */
class Identity(
    val key: ECPrivateKey,
    val publicKey: PublicKey,
) {
    /** Lower-case hex, 64 characters. */
    val id: String = Certificates.idOf(publicKey)

    companion object {
        /** Where the key is in the store: PKCS #8 in PEM, as the Python device writes it. */
        const val KEY_FILE = "key.pem"
        private const val BEGIN = "-----BEGIN PRIVATE KEY-----"
        private const val END = "-----END PRIVATE KEY-----"
        private const val LINE = 64

        /**
         * Read the key from the store; make it when there is none.
         *
         * @throws EdvitError `device.key`: the file holds something else.
         */
        fun loadOrMake(store: Store): Identity {
            val pem = store.read(KEY_FILE)
            if (pem != null) return parse(String(pem, Charsets.US_ASCII), "${store.path.resolve(KEY_FILE)}")
            val pair = KeyPairGenerator.getInstance("EC").apply { initialize(ECGenParameterSpec(CURVE)) }.generateKeyPair()
            store.write(KEY_FILE, pem(pair.private.encoded).toByteArray())
            return Identity(pair.private as ECPrivateKey, pair.public)
        }

        private fun pem(der: ByteArray): String {
            val text = Base64.getMimeEncoder(LINE, byteArrayOf('\n'.code.toByte())).encodeToString(der)
            return "$BEGIN\n$text\n$END\n"
        }

        private fun parse(
            pem: String,
            where: String,
        ): Identity {
            val advice = "put the right file back, or delete it and the device gets a new identity"
            val key =
                try {
                    val der = Base64.getMimeDecoder().decode(pem.substringAfter(BEGIN).substringBefore(END))
                    KeyFactory.getInstance("EC").generatePrivate(PKCS8EncodedKeySpec(der)) as ECPrivateKey
                } catch (error: GeneralSecurityException) {
                    throw EdvitError("$where holds no private key: $advice", "device.key", error)
                } catch (error: IllegalArgumentException) {
                    throw EdvitError("$where holds no private key: $advice", "device.key", error)
                }
            if (key.params.order != P256.order || key.params.curve != P256.curve) {
                throw EdvitError("$where holds a key that is not P-256: $advice", "device.key")
            }
            return Identity(key, publicOf(key))
        }

        /** The public half, which Java does not keep of a key that it reads. */
        private fun publicOf(key: ECPrivateKey): PublicKey {
            val point =
                SECNamedCurves
                    .getByName(CURVE)
                    .g
                    .multiply(key.s)
                    .normalize()
            val place = ECPoint(point.affineXCoord.toBigInteger(), point.affineYCoord.toBigInteger())
            return KeyFactory.getInstance("EC").generatePublic(ECPublicKeySpec(place, P256))
        }
    }
}
