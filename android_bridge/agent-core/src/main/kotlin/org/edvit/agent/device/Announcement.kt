package org.edvit.agent.device

import java.io.Closeable
import java.io.IOException
import java.net.Inet4Address
import java.net.InetAddress
import java.net.NetworkInterface
import java.util.logging.Logger
import javax.jmdns.JmDNS
import javax.jmdns.ServiceInfo

/** Tells the local network that a device is here; closing it says goodbye. */
fun interface Announcer {
    /** Announce a device at an address and a port; `pair` is the port on which it waits to be paired, or 0. */
    fun announce(
        facts: Facts,
        address: InetAddress,
        port: Int,
        pair: Int,
    ): Closeable
}

/** The addresses of this machine under which a port on `address` is reached; 0.0.0.0 means all of them. */
fun reachable(address: InetAddress): List<InetAddress> {
    if (!address.isAnyLocalAddress) return listOf(address)
    val found = NetworkInterface.getNetworkInterfaces().asSequence().flatMap { it.inetAddresses.asSequence() }
    // Another machine that tried our loopback address would meet itself.
    val beyond = found.filter { it is Inet4Address && !it.isLoopbackAddress }.sortedBy { it.hostAddress }.toList()
    return beyond.ifEmpty { listOf(InetAddress.getLoopbackAddress()) }
}

/** The service of a device in zeroconf (`edvit_tf/device/advertise.py`): a hint that proves nothing. */
object ServiceRecord {
    const val TYPE = "_edvit._tcp.local."
    private const val ID_DIGITS = 12
    private const val LONGEST_LABEL = 40
    private val NOT_IN_A_LABEL = Regex("[^A-Za-z0-9 _-]+")

    /** Two devices may have the same name, and a label has no dots here. */
    fun label(facts: Facts): String {
        val name =
            facts.name
                .replace(NOT_IN_A_LABEL, "-")
                .take(LONGEST_LABEL)
                .ifEmpty { "device" }
        return "$name ${facts.id.take(ID_DIGITS)}"
    }

    /** The name of the machine that answers. */
    fun host(facts: Facts): String = "edvit-${facts.id.take(ID_DIGITS)}"

    /** The TXT record. */
    fun properties(
        facts: Facts,
        protocol: Int,
        pair: Int,
    ): Map<String, String> =
        buildMap {
            put("id", facts.id)
            put("name", facts.name)
            put("proto", "$protocol")
            put("software", facts.software)
            put("runtime", facts.runtime)
            put("kind", facts.kind)
            put("memory", "${facts.memoryBytes}")
            put("cores", "${facts.cores}")
            if (pair != 0) put("pair", "$pair")
        }
}

/** Announces by jmDNS, on each address that reaches the port. A device that cannot announce itself still serves. */
class JmDnsAnnouncer(
    private val protocol: Int,
) : Announcer {
    override fun announce(
        facts: Facts,
        address: InetAddress,
        port: Int,
        pair: Int,
    ): Closeable {
        val open =
            reachable(address).mapNotNull { place ->
                try {
                    JmDNS.create(place, ServiceRecord.host(facts)).also { it.registerService(info(facts, port, pair)) }
                } catch (error: IOException) {
                    log.warning(
                        "cannot announce this device on ${place.hostAddress} (${error.message}): " +
                            "aggregators find it only by --address",
                    )
                    null
                }
            }
        return Closeable { open.forEach(JmDNS::close) }
    }

    private fun info(
        facts: Facts,
        port: Int,
        pair: Int,
    ): ServiceInfo =
        ServiceInfo.create(ServiceRecord.TYPE, ServiceRecord.label(facts), port, 0, 0, ServiceRecord.properties(facts, protocol, pair))

    private companion object {
        val log: Logger = Logger.getLogger(JmDnsAnnouncer::class.java.name)

        init {
            PromptProbes.install()
        }
    }
}
