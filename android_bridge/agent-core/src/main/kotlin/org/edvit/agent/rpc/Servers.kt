package org.edvit.agent.rpc

import com.google.protobuf.ByteString
import io.grpc.Grpc
import io.grpc.InsecureServerCredentials
import io.grpc.Metadata
import io.grpc.Server
import io.grpc.ServerCall
import io.grpc.ServerCallHandler
import io.grpc.ServerInterceptor
import io.grpc.Status
import io.grpc.okhttp.OkHttpServerBuilder
import io.grpc.stub.ServerCallStreamObserver
import io.grpc.stub.StreamObserver
import org.edvit.agent.EdvitError
import org.edvit.agent.Journal
import org.edvit.agent.device.DeviceService
import org.edvit.agent.trust.Certificates
import org.edvit.agent.trust.PairingService
import org.edvit.agent.trust.Shown
import org.edvit.rpc.CertificateReply
import org.edvit.rpc.CertificateRequest
import org.edvit.rpc.DeviceGrpc
import org.edvit.rpc.HelloReply
import org.edvit.rpc.HelloRequest
import org.edvit.rpc.InferReply
import org.edvit.rpc.InferRequest
import org.edvit.rpc.InstallReply
import org.edvit.rpc.InstallRequest
import org.edvit.rpc.JournalGrpc
import org.edvit.rpc.JournalLine
import org.edvit.rpc.JournalRequest
import org.edvit.rpc.MembershipGrpc
import org.edvit.rpc.PairReply
import org.edvit.rpc.PairRequest
import org.edvit.rpc.PairingGrpc
import java.io.IOException
import java.net.InetAddress
import java.net.InetSocketAddress
import java.util.concurrent.TimeUnit

// A picture of 1,500 × 1,500 pixels in colour, and a manifest of thousands of files, fit.
private const val MESSAGE_BYTES = 8 shl 20
private const val MOST_CONNECTIONS = 64
private const val HANDSHAKE_SECONDS = 5L

// A picture waits its turn in memory: beyond this a device says that it is busy.
private const val MOST_CALLS = 64
private const val KEEPALIVE_SECONDS = 10L
private const val GRACE_SECONDS = 1L

private const val PAIRING_MESSAGE_BYTES = 64 * 1024
private const val PAIRING_CONNECTIONS = 32
private const val PAIRING_CALLS = 8
private const val PAIRING_SECONDS = 30L

/** An open port. */
class OpenPort internal constructor(
    private val server: Server,
    /** Where it listens. */
    val port: Int,
) : AutoCloseable {
    /** Take no new calls, and give those under way a moment. */
    override fun close() {
        server.shutdown()
        if (!server.awaitTermination(GRACE_SECONDS, TimeUnit.SECONDS)) server.shutdownNow().awaitTermination()
    }
}

/**
 * A device's port, taken before there is anything to serve, so that it can be announced meanwhile.
 *
 * @throws EdvitError `link.port`.
 */
class DevicePort(
    private val address: InetAddress,
    port: Int,
    private val shown: Shown,
) {
    private val tls = MutualTls(shown)
    private val listener = Listener(MOST_CONNECTIONS, HANDSHAKE_SECONDS, whole = false, tls)

    /** Where it will listen. */
    val port: Int = reserved(listener, address, port)

    /** Serve a device: mutual TLS, and only aggregators of the same fleet. */
    fun serve(
        service: DeviceService,
        journal: Journal,
    ): OpenPort {
        val builder =
            builder(address, port, listener)
                .maxInboundMessageSize(MESSAGE_BYTES)
                .maxConcurrentCallsPerConnection(MOST_CALLS)
                .keepAliveTime(KEEPALIVE_SECONDS, TimeUnit.SECONDS)
                .keepAliveTimeout(KEEPALIVE_SECONDS, TimeUnit.SECONDS)
                .permitKeepAliveTime(KEEPALIVE_SECONDS / 2, TimeUnit.SECONDS)
                .permitKeepAliveWithoutCalls(true)
                .addService(DeviceCalls(service))
                .addService(MembershipCalls(shown))
                .addService(JournalCalls(journal))
                .intercept(OnlyAggregators(listener))
        return OpenPort(builder.build().start(), port).also { checkSelf(tls, address, port) }
    }
}

/**
 * Serve conversations about joining on an address and any free port: in the clear, because nothing on it is secret.
 *
 * @throws EdvitError `link.port`.
 */
fun servePairing(
    service: PairingService,
    address: InetAddress,
): OpenPort {
    val listener = Listener(PAIRING_CONNECTIONS, PAIRING_SECONDS, whole = true) { it to null }
    val port = reserved(listener, address, 0)
    val builder =
        builder(address, port, listener)
            .maxInboundMessageSize(PAIRING_MESSAGE_BYTES)
            .maxConcurrentCallsPerConnection(PAIRING_CALLS)
            .addService(PairingCalls(service))
    return OpenPort(builder.build().start(), port)
}

/**
 * Find out before a device is adopted whether it will be able to listen.
 *
 * @throws EdvitError `link.port`.
 */
fun checkFree(
    address: InetAddress,
    port: Int,
) {
    try {
        java.net.ServerSocket().use { it.bind(InetSocketAddress(address, port)) }
    } catch (error: IOException) {
        throw portTaken(address, port, error)
    }
}

private fun builder(
    address: InetAddress,
    port: Int,
    listener: Listener,
): OkHttpServerBuilder =
    // The listener has done what gRPC calls credentials before gRPC hears of a connection.
    OkHttpServerBuilder.forPort(InetSocketAddress(address, port), InsecureServerCredentials.create()).socketFactory(listener)

private fun reserved(
    listener: Listener,
    address: InetAddress,
    port: Int,
): Int =
    try {
        listener.reserve(InetSocketAddress(address, port))
    } catch (error: IOException) {
        throw portTaken(address, port, error)
    }

private fun portTaken(
    address: InetAddress,
    port: Int,
    cause: IOException,
) = EdvitError(
    "cannot listen on ${address.hostAddress} port $port: choose another --port (0 takes any free one) or stop what is using it",
    "link.port",
    cause,
)

private val CODE = Metadata.Key.of("edvit-code", Metadata.ASCII_STRING_MARSHALLER)

/** Answer a call, or refuse it: FAILED_PRECONDITION with our code beside it. */
private fun <T> answer(
    observer: StreamObserver<T>,
    work: () -> T,
) {
    try {
        observer.onNext(work())
        observer.onCompleted()
    } catch (error: EdvitError) {
        val code = Metadata().apply { put(CODE, error.code) }
        observer.onError(Status.FAILED_PRECONDITION.withDescription(error.message).asRuntimeException(code))
    }
}

private class DeviceCalls(
    private val service: DeviceService,
) : DeviceGrpc.DeviceImplBase() {
    private val answering = Answering(service::infer, MOST_CALLS)

    override fun hello(
        request: HelloRequest,
        observer: StreamObserver<HelloReply>,
    ) = answer(observer) { service.hello(request) }

    override fun install(observer: StreamObserver<InstallReply>): StreamObserver<InstallRequest> {
        val conversation = Conversation<InstallRequest, InstallReply>(observer as ServerCallStreamObserver<InstallReply>)
        conversation.hold("install") { service.install(conversation, conversation::reply) }
        return conversation.incoming
    }

    override fun infer(observer: StreamObserver<InferReply>): StreamObserver<InferRequest> = answering.stream(observer)
}

private class MembershipCalls(
    private val shown: Shown,
) : MembershipGrpc.MembershipImplBase() {
    override fun certificate(
        request: CertificateRequest,
        observer: StreamObserver<CertificateReply>,
    ) = answer(observer) {
        CertificateReply
            .newBuilder()
            .setCertificate(ByteString.copyFrom(shown.renew(request.certificate.toByteArray())))
            .build()
    }
}

private class JournalCalls(
    private val journal: Journal,
) : JournalGrpc.JournalImplBase() {
    override fun read(
        request: JournalRequest,
        observer: StreamObserver<JournalLine>,
    ) {
        val call = observer as ServerCallStreamObserver<JournalLine>
        call.setOnCancelHandler {}
        Thread({
            journal.read(request.last, request.follow) { line ->
                if (line != null) call.onNext(JournalLine.newBuilder().setJson(line).build())
                !call.isCancelled
            }
            if (!call.isCancelled) call.onCompleted()
        }, "journal").apply { isDaemon = true }.start()
    }
}

private class PairingCalls(
    private val service: PairingService,
) : PairingGrpc.PairingImplBase() {
    override fun pair(observer: StreamObserver<PairReply>): StreamObserver<PairRequest> {
        val conversation = Conversation<PairRequest, PairReply>(observer as ServerCallStreamObserver<PairReply>)
        conversation.hold("pair") { service.pair(conversation, conversation::reply) }
        return conversation.incoming
    }
}

/** Every device of the fleet has a certificate, and none of them may tell another what to do. */
private class OnlyAggregators(
    private val listener: Listener,
) : ServerInterceptor {
    override fun <Q, R> interceptCall(
        call: ServerCall<Q, R>,
        headers: Metadata,
        next: ServerCallHandler<Q, R>,
    ): ServerCall.Listener<Q> {
        val peer = listener.peer(call.attributes[Grpc.TRANSPORT_ATTR_REMOTE_ADDR])
        if (peer != null && Certificates.isAggregator(peer)) return next.startCall(call, headers)
        call.close(Status.PERMISSION_DENIED.withDescription("only the fleet's aggregator may ask this of a device"), Metadata())
        return object : ServerCall.Listener<Q>() {}
    }
}
