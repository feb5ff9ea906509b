package org.edvit.phone

import android.content.Context
import android.net.wifi.WifiManager
import android.os.PowerManager

private const val TAG = "edvit:device"

/** Hears multicast although Wi-Fi would rather not. */
class MulticastHold(
    context: Context,
) : Hold {
    private val lock = context.system<WifiManager>().createMulticastLock(TAG)

    override fun take() = lock.acquire()

    override fun release() = lock.release()
}

/** Keeps the processor awake; the screen may be off. */
class ProcessorHold(
    context: Context,
) : Hold {
    private val lock = context.system<PowerManager>().newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, TAG)

    override fun take() = lock.acquire()

    override fun release() = lock.release()
}
