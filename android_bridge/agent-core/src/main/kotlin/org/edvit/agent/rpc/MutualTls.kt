package org.edvit.agent.rpc

import org.edvit.agent.trust.Membership
import org.edvit.agent.trust.Shown
import java.io.IOException
import java.net.InetSocketAddress
import java.net.Socket
import java.security.KeyStore
import java.security.cert.X509Certificate
import javax.net.ssl.KeyManagerFactory
import javax.net.ssl.SSLContext
import javax.net.ssl.SSLException
import javax.net.ssl.SSLSocket
import javax.net.ssl.TrustManagerFactory

/**
 * Mutual TLS 1.3 by the platform, under gRPC: grpc-okhttp by itself speaks 1.2 alone (grpc-java issue 7765, decision 0060).
 *
 * A connection is admitted when its peer has proved to be of the fleet; what is shown is asked at each handshake, so that a
 * renewal drops nothing.
 */
internal class MutualTls(
    private val shown: Shown,
) : Welcome {
    private var built: Pair<Membership, SSLContext>? = null

    override fun admit(socket: Socket): Pair<Socket, X509Certificate> {
        val secured = context().socketFactory.createSocket(socket, socket.inetAddress.hostAddress, socket.port, true) as SSLSocket
        secured.useClientMode = false
        secured.needClientAuth = true
        shake(secured)
        return secured to secured.session.peerCertificates.first() as X509Certificate
    }

    /** Connect to a member of the fleet. */
    fun connect(address: InetSocketAddress): Socket {
        val secured = context().socketFactory.createSocket(address.address, address.port) as SSLSocket
        try {
            shake(secured)
        } catch (error: IOException) {
            secured.close()
            throw error
        }
        return secured
    }

    private fun shake(secured: SSLSocket) {
        secured.enabledProtocols = arrayOf("TLSv1.3")
        secured.sslParameters = secured.sslParameters.apply { applicationProtocols = arrayOf("h2") }
        secured.tcpNoDelay = true
        secured.startHandshake()
        if (secured.applicationProtocol != "h2") throw SSLException("the peer does not speak HTTP/2")
    }

    @Synchronized
    private fun context(): SSLContext {
        val membership = shown.membership
        return built?.takeIf { it.first === membership }?.second
            ?: make(membership).also { built = membership to it }
    }

    private fun make(membership: Membership): SSLContext {
        // A key store wants a password, and not every platform's an empty one; nobody ever writes this one down.
        val password = "edvit".toCharArray()
        val mine = empty()
        mine.setKeyEntry("device", shown.identity.key, password, arrayOf(membership.certificate))
        val keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm()).apply { init(mine, password) }
        val believed = empty()
        believed.setCertificateEntry("authority", membership.authority)
        val trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm()).apply { init(believed) }
        return SSLContext.getInstance("TLSv1.3").apply { init(keys.keyManagers, trust.trustManagers, null) }
    }

    private fun empty(): KeyStore = KeyStore.getInstance(KeyStore.getDefaultType()).apply { load(null, null) }
}
