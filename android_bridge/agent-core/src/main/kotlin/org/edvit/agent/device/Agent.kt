package org.edvit.agent.device

import org.edvit.agent.EdvitError
import org.edvit.agent.Journal
import org.edvit.agent.engine.Runtime
import org.edvit.agent.policy.PowerWatch
import org.edvit.agent.rpc.DevicePort
import org.edvit.agent.rpc.checkFree
import org.edvit.agent.rpc.servePairing
import org.edvit.agent.store.Store
import org.edvit.agent.trust.About
import org.edvit.agent.trust.Certificates
import org.edvit.agent.trust.Identity
import org.edvit.agent.trust.Membership
import org.edvit.agent.trust.Pairing
import org.edvit.agent.trust.PairingService
import org.edvit.agent.trust.Shown
import org.edvit.agent.trust.Token
import java.net.InetAddress
import java.nio.file.Path
import java.time.Instant
import java.util.concurrent.CountDownLatch
import java.util.logging.Logger

/** How to run a device: `port` 0 takes any free one; without `token` a device of no fleet shows a code. */
class Settings(
    val name: String,
    val store: Path,
    val address: InetAddress,
    val port: Int,
    val memoryBytes: Long,
    val token: Token?,
    val software: String,
)

/** A device that serves and is announced. */
class Ready(
    val id: String,
    val name: String,
    val address: String,
    val port: Int,
)

/** A device that waits to be paired; `code` is empty when it has a token. */
class Waiting(
    val id: String,
    val name: String,
    val address: String,
    val port: Int,
    val code: String,
) {
    /** What the QR code says: the code, and each address with its port at which the device waits. */
    val link: String
        get() {
            val places = reachable(InetAddress.getByName(address)).joinToString(",") { "${it.hostAddress}:$port" }
            return "edvit:pair?id=$id&address=$places&code=$code"
        }
}

/**
 * The device agent: open the store, serve what is in it, announce it, and stop cleanly when told to.
 *
 * `watch` says when its machine must not work; each kind of machine looks at its power in its own way.
 */
class Agent(
    private val settings: Settings,
    private val runtime: Runtime,
    private val announcer: Announcer,
    private val watch: PowerWatch,
    private val journal: Journal,
    private val onWaiting: (Waiting) -> Unit,
    private val onReady: (Ready) -> Unit,
) {
    private val stopped = CountDownLatch(1)

    /** Tell [run] to end; from any thread. */
    fun stop() = stopped.countDown()

    /**
     * Serve until told to stop.
     *
     * @throws EdvitError the store cannot be used, or the port is taken.
     */
    fun run() = Store(settings.store).use(::serve)

    private fun serve(store: Store) {
        val identity = Identity.loadOrMake(store)
        val facts = Facts(identity.id, settings.name, settings.software, runtime, settings.memoryBytes)
        val membership = Membership.load(store) ?: becomeMember(store, identity, facts) ?: return
        sayIfNotValid(membership)
        val port = DevicePort(settings.address, settings.port, Shown(store, identity, membership))
        // An announcement takes seconds to go out; who is quicker than the proofs waits a moment at the port.
        announcer.announce(facts, settings.address, port.port, 0).use {
            val installer = Installer(store, runtime, settings.memoryBytes, membership.bundleKey)
            DeviceService(facts, installer.restore(), installer, watch::pause).use { service ->
                port.serve(service, journal).use {
                    onReady(Ready(identity.id, settings.name, settings.address.hostAddress, port.port))
                    stopped.await()
                }
            }
        }
    }

    /** Wait on a port of its own until an aggregator has proved itself; null when told to stop before. */
    private fun becomeMember(
        store: Store,
        identity: Identity,
        facts: Facts,
    ): Membership? {
        checkFree(settings.address, settings.port)
        val code = if (settings.token == null) Pairing.newCode() else ""
        var joined: Membership? = null
        val over = CountDownLatch(1)
        val about = About(settings.name, runtime.name, facts.kind, settings.memoryBytes, facts.cores)
        val secret = settings.token?.secret ?: Pairing.readCode(code)
        val service =
            PairingService(identity, about, secret, settings.token) { membership ->
                membership.save(store)
                joined = membership
                over.countDown()
            }
        servePairing(service, settings.address).use { server ->
            announcer.announce(facts, settings.address, server.port, server.port).use {
                onWaiting(Waiting(identity.id, settings.name, settings.address.hostAddress, server.port, code))
                // Whichever comes first.
                Thread { stopped.await().also { over.countDown() } }.apply { isDaemon = true }.start()
                over.await()
            }
        }
        return joined
    }

    /** Nobody gets through a handshake while the clock is wrong; it may be set in a minute. */
    private fun sayIfNotValid(membership: Membership) {
        try {
            Certificates.checkClock(membership.certificate, Instant.now())
        } catch (error: EdvitError) {
            log.warning(error.message)
        }
    }

    private companion object {
        val log: Logger = Logger.getLogger(Agent::class.java.name)
    }
}
