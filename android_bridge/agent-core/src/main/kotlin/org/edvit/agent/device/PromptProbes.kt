package org.edvit.agent.device

import java.util.Timer
import java.util.concurrent.atomic.AtomicInteger
import javax.jmdns.impl.DNSTaskStarter
import javax.jmdns.impl.JmDNSImpl
import javax.jmdns.impl.tasks.state.Prober

private const val PROBE_MILLISECONDS = 250

// A host and its service have one each; whoever probes again has met its own name elsewhere.
private const val FIRST_PROBES = 2

/**
 * Has jmDNS ask every 250 milliseconds whether a name is taken, as RFC 6762 (8.1) has it, and not once a second.
 *
 * jmDNS waits that long for every host that is new, which puts off its first announcement by three seconds. After a
 * conflict its own, slower pace is right.
 */
internal class PromptProbes private constructor(
    private val dns: JmDNSImpl,
    private val usual: DNSTaskStarter,
) : DNSTaskStarter by usual {
    private val timer = Timer("probes", true)
    private val probes = AtomicInteger()

    override fun startProber() {
        if (probes.incrementAndGet() > FIRST_PROBES) return usual.startProber()
        val first = JmDNSImpl.getRandom().nextInt(PROBE_MILLISECONDS).toLong()
        timer.schedule(Prober(dns), first, PROBE_MILLISECONDS.toLong())
    }

    override fun purgeStateTimer() {
        timer.purge()
        usual.purgeStateTimer()
    }

    override fun cancelStateTimer() {
        timer.cancel()
        usual.cancelStateTimer()
    }

    companion object {
        /** Have every `JmDNS` that is created from now on probe so. */
        fun install() = DNSTaskStarter.Factory.setClassDelegate { PromptProbes(it, DNSTaskStarter.DNSTaskStarterImpl(it)) }
    }
}
