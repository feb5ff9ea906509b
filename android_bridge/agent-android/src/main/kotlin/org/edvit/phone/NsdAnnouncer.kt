package org.edvit.phone

import android.content.Context
import android.net.nsd.NsdManager
import android.net.nsd.NsdServiceInfo
import org.edvit.agent.device.Announcer
import org.edvit.agent.device.Facts
import org.edvit.agent.device.ServiceRecord
import org.edvit.agent.rpc.PROTOCOL
import java.io.Closeable
import java.net.InetAddress
import java.util.logging.Logger

/** Announces by the phone's own responder, which answers also while this app sleeps. A device that cannot announce itself still serves. */
class NsdAnnouncer(
    context: Context,
) : Announcer {
    private val manager = context.system<NsdManager>()

    override fun announce(
        facts: Facts,
        address: InetAddress,
        port: Int,
        pair: Int,
    ): Closeable {
        val service =
            NsdServiceInfo().apply {
                serviceName = ServiceRecord.label(facts)
                serviceType = ServiceRecord.TYPE.removeSuffix(".local.")
                setPort(port)
                ServiceRecord.properties(facts, PROTOCOL, pair).forEach(::setAttribute)
            }
        val listener = Listener()
        manager.registerService(service, NsdManager.PROTOCOL_DNS_SD, listener)
        return Closeable { manager.unregisterService(listener) }
    }

    private class Listener : NsdManager.RegistrationListener {
        override fun onServiceRegistered(service: NsdServiceInfo) = log.info("announced as ${service.serviceName}")

        override fun onRegistrationFailed(
            service: NsdServiceInfo,
            error: Int,
        ) = log.warning("cannot announce this device (NSD error $error): aggregators find it only by --address")

        override fun onServiceUnregistered(service: NsdServiceInfo) = Unit

        override fun onUnregistrationFailed(
            service: NsdServiceInfo,
            error: Int,
        ) = log.warning("the announcement stays for a while (NSD error $error)")
    }

    private companion object {
        val log: Logger = Logger.getLogger(NsdAnnouncer::class.java.name)
    }
}
