package org.edvit.agent.rpc

import io.grpc.Status
import io.grpc.StatusRuntimeException
import io.grpc.okhttp.OkHttpChannelBuilder
import org.edvit.rpc.DeviceGrpc
import org.edvit.rpc.HelloRequest
import java.net.InetAddress
import java.net.InetSocketAddress
import java.net.Socket
import java.util.concurrent.TimeUnit
import java.util.logging.Logger
import javax.net.SocketFactory

private const val SECONDS = 10L
private val log: Logger = Logger.getLogger("org.edvit.agent.rpc.SelfCheck")

/**
 * Ask one's own port over the network, with one's own certificate, and be told that a device may not ask.
 *
 * A device is announced only after that: it does answer, and a virtual machine that has loaded all of TLS, HTTP/2 and gRPC
 * once answers its aggregator in time. What is wrong is logged.
 */
internal fun checkSelf(
    tls: MutualTls,
    address: InetAddress,
    port: Int,
) {
    val near = if (address.isAnyLocalAddress) InetAddress.getLoopbackAddress() else address
    val channel =
        OkHttpChannelBuilder
            .forAddress(near.hostAddress, port)
            .usePlaintext()
            .socketFactory(TlsSockets(tls))
            .build()
    try {
        DeviceGrpc.newBlockingStub(channel).withDeadlineAfter(SECONDS, TimeUnit.SECONDS).hello(HelloRequest.getDefaultInstance())
        log.severe("this device answers other devices: stop it")
    } catch (error: StatusRuntimeException) {
        if (error.status.code != Status.Code.PERMISSION_DENIED) {
            log.warning("this device does not reach itself at ${near.hostAddress} port $port: ${error.status.code}")
        }
    } finally {
        channel.shutdownNow()
    }
}

/** Connections that are mutual TLS 1.3 before gRPC hears of them. */
private class TlsSockets(
    private val tls: MutualTls,
) : SocketFactory() {
    override fun createSocket(): Socket = throw UnsupportedOperationException("connect it")

    override fun createSocket(
        host: String,
        port: Int,
    ): Socket = createSocket(InetAddress.getByName(host), port)

    override fun createSocket(
        host: String,
        port: Int,
        localHost: InetAddress?,
        localPort: Int,
    ): Socket = createSocket(host, port)

    override fun createSocket(
        address: InetAddress,
        port: Int,
    ): Socket = tls.connect(InetSocketAddress(address, port))

    override fun createSocket(
        address: InetAddress,
        port: Int,
        localAddress: InetAddress?,
        localPort: Int,
    ): Socket = createSocket(address, port)
}
