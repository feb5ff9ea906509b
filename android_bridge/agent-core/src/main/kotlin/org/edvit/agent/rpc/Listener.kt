package org.edvit.agent.rpc

import java.io.IOException
import java.net.InetAddress
import java.net.InetSocketAddress
import java.net.ServerSocket
import java.net.Socket
import java.net.SocketAddress
import java.net.SocketException
import java.security.cert.X509Certificate
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.Executors
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.ScheduledExecutorService
import java.util.concurrent.TimeUnit
import javax.net.ServerSocketFactory

/** What makes a connection one of ours, such as a handshake; closing what it was given ends it. */
fun interface Welcome {
    /**
     * The connection that gRPC speaks over, and whose it is, if that is known.
     *
     * @throws IOException it is not welcome.
     */
    fun admit(socket: Socket): Pair<Socket, X509Certificate?>
}

/**
 * A port whose strangers are bounded in number and in time before gRPC hears of them.
 *
 * At most `most` connections are open; one more is closed at once. Each has `seconds` to be admitted, however slowly it
 * speaks, and with `whole` for everything.
 */
class Listener(
    private val most: Int,
    private val seconds: Long,
    private val whole: Boolean,
    private val welcome: Welcome,
) : ServerSocketFactory() {
    private val peers = ConcurrentHashMap<SocketAddress, X509Certificate>()
    private val reserved = Port()

    /**
     * Take the port now; who connects waits until a server accepts.
     *
     * @throws IOException it is taken, or the address is not this machine's.
     */
    fun reserve(address: InetSocketAddress): Int {
        // Who is too many is closed at once; who is not heard would try again for a quarter of a minute.
        reserved.bind(address, BACKLOG)
        return reserved.localPort
    }

    /** Whose the connection from an address is; null for one that is not open, or whose peer has proved nothing. */
    fun peer(address: SocketAddress?): X509Certificate? = address?.let(peers::get)

    override fun createServerSocket(): ServerSocket = reserved

    override fun createServerSocket(port: Int): ServerSocket = throw UnsupportedOperationException("bind it")

    override fun createServerSocket(
        port: Int,
        backlog: Int,
    ): ServerSocket = createServerSocket(port)

    override fun createServerSocket(
        port: Int,
        backlog: Int,
        address: InetAddress?,
    ): ServerSocket = createServerSocket(port)

    private inner class Port : ServerSocket() {
        private val open = ConcurrentHashMap.newKeySet<Tracked>()
        private val ready = LinkedBlockingQueue<Socket>()
        private val greeters = Executors.newCachedThreadPool { Thread(it, "handshake").apply { isDaemon = true } }
        private val clock: ScheduledExecutorService =
            Executors.newSingleThreadScheduledExecutor { Thread(it, "deadline").apply { isDaemon = true } }

        @Volatile
        private var failure: IOException? = null

        // A server binds when it starts; by then the port is taken.
        override fun bind(
            address: SocketAddress?,
            backlog: Int,
        ) {
            if (!isBound) return super.bind(address, backlog)
            Thread(::greet, "port").apply { isDaemon = true }.start()
        }

        override fun accept(): Socket {
            val socket = ready.take()
            if (socket === CLOSED) throw failure ?: SocketException("the port is closed")
            return socket
        }

        override fun close() {
            super.close()
            greeters.shutdown()
            clock.shutdown()
            ready.add(CLOSED)
        }

        private fun greet() {
            try {
                while (true) {
                    val socket = Tracked()
                    implAccept(socket)
                    if (open.size >= most) socket.close() else greet(socket)
                }
            } catch (error: IOException) {
                failure = error
                ready.add(CLOSED)
            }
        }

        private fun greet(socket: Tracked) {
            open += socket
            socket.address = socket.remoteSocketAddress
            val deadline = clock.schedule({ socket.close() }, seconds, TimeUnit.SECONDS)
            greeters.execute {
                try {
                    val (admitted, peer) = welcome.admit(socket)
                    if (peer != null) socket.address?.let { peers[it] = peer }
                    if (whole || deadline.cancel(false)) ready.add(admitted)
                    // It may have been closed before its peer was noted.
                    if (socket.isClosed) socket.address?.let(peers::remove)
                } catch (_: IOException) {
                    socket.close()
                } catch (_: RuntimeException) {
                    socket.close()
                }
            }
        }

        private inner class Tracked : Socket() {
            var address: SocketAddress? = null

            override fun close() {
                super.close()
                if (open.remove(this)) address?.let(peers::remove)
            }
        }
    }

    private companion object {
        const val BACKLOG = 1024
        val CLOSED = Socket()
    }
}
