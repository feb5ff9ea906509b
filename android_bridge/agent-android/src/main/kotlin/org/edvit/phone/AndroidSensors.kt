package org.edvit.phone

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.net.ConnectivityManager
import android.net.NetworkCapabilities
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager

/** What this phone's system tells. */
class AndroidSensors(
    private val context: Context,
) : Sensors {
    private val power = context.system<PowerManager>()
    private val networks = context.system<ConnectivityManager>()

    override fun battery(): Battery? {
        // The last broadcast is kept for whoever asks.
        val last = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED)) ?: return null
        val level = last.getIntExtra(BatteryManager.EXTRA_LEVEL, -1)
        val scale = last.getIntExtra(BatteryManager.EXTRA_SCALE, -1)
        if (level < 0 || scale <= 0) return null
        return Battery(last.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0, PERCENT * level / scale)
    }

    override fun headroom(): Float =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) power.getThermalHeadroom(FORECAST_SECONDS) else Float.NaN

    override fun thermalStatus(): Int = power.currentThermalStatus

    override fun wifi(): Boolean? = capabilities()?.let { it.hasTransport(WIFI) || it.hasTransport(ETHERNET) }

    /** Whether there is any network. */
    fun network(): Boolean = capabilities() != null

    /** Whether Android may put this app to sleep while the phone lies unused. */
    fun mayDoze(): Boolean = !power.isIgnoringBatteryOptimizations(context.packageName)

    private fun capabilities(): NetworkCapabilities? = networks.getNetworkCapabilities(networks.activeNetwork)

    private companion object {
        const val PERCENT = 100
        const val FORECAST_SECONDS = 10
        const val WIFI = NetworkCapabilities.TRANSPORT_WIFI
        const val ETHERNET = NetworkCapabilities.TRANSPORT_ETHERNET
    }
}
