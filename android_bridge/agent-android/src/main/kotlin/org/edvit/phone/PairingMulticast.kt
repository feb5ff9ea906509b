package org.edvit.phone

import org.edvit.agent.device.Announcer
import org.edvit.agent.device.Facts
import java.io.Closeable
import java.net.InetAddress

/** Something of the phone that is held for a while and costs battery. */
interface Hold {
    /** Take it. */
    fun take()

    /** Let go of it. */
    fun release()
}

/** Announces, and lets the phone hear multicast only while it waits to be paired: when somebody is looking at it anyway. */
class PairingMulticast(
    private val announcer: Announcer,
    private val multicast: Hold,
) : Announcer {
    override fun announce(
        facts: Facts,
        address: InetAddress,
        port: Int,
        pair: Int,
    ): Closeable {
        if (pair == 0) return announcer.announce(facts, address, port, pair)
        multicast.take()
        val open =
            try {
                announcer.announce(facts, address, port, pair)
            } catch (error: Exception) {
                multicast.release()
                throw error
            }
        return Closeable {
            try {
                open.close()
            } finally {
                multicast.release()
            }
        }
    }
}
