package org.edvit.phone

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.BroadcastReceiver
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.graphics.drawable.Icon
import android.os.IBinder
import java.util.concurrent.Executors
import java.util.concurrent.ScheduledExecutorService
import java.util.concurrent.TimeUnit
import java.util.logging.Logger

private const val STOP = "org.edvit.phone.STOP"
private const val AT_START = "org.edvit.phone.AT_START"
private const val CHANNEL = "device"
private const val NOTIFICATION = 1
private val log: Logger = Logger.getLogger(PhoneService::class.java.name)

/**
 * Lets the device live while no screen shows the app, with a notification that says how it is and has a Stop.
 *
 * Of type connectedDevice, which Android bounds neither in time nor at the start of the phone.
 */
class PhoneService : Service() {
    private lateinit var device: Device
    private lateinit var clock: ScheduledExecutorService
    private val changed = ::show

    override fun onBind(intent: Intent): IBinder? = null

    override fun onCreate() {
        super.onCreate()
        device = Device.of(this)
        val channel = NotificationChannel(CHANNEL, "Device of a fleet", NotificationManager.IMPORTANCE_LOW)
        system<NotificationManager>().createNotificationChannel(channel)
        device.listen(changed)
        clock = Executors.newSingleThreadScheduledExecutor()
        clock.scheduleWithFixedDelay(device::look, LOOK_SECONDS, LOOK_SECONDS, TimeUnit.SECONDS)
    }

    override fun onStartCommand(
        intent: Intent?,
        flags: Int,
        startId: Int,
    ): Int {
        // Android wants to see the notification within seconds, also of a service that ends at once.
        startForeground(NOTIFICATION, notification(), ServiceInfo.FOREGROUND_SERVICE_TYPE_CONNECTED_DEVICE)
        val start =
            when {
                intent == null -> Start.AGAIN
                intent.action == AT_START -> Start.SYSTEM
                else -> Start.OWNER
            }
        if (intent?.action == STOP) device.wish.stop()
        if (intent?.action == STOP || !device.wish.starts(start)) {
            stopForeground(STOP_FOREGROUND_REMOVE)
            stopSelf()
            return START_NOT_STICKY
        }
        device.start()
        return START_STICKY
    }

    override fun onDestroy() {
        device.forget(changed)
        clock.shutdownNow()
        device.stop()
        super.onDestroy()
    }

    private fun show() = system<NotificationManager>().notify(NOTIFICATION, notification())

    private fun notification(): Notification {
        val now = explain(device.situation)
        val opens = PendingIntent.getActivity(this, 0, Intent(this, MainScreen::class.java), PendingIntent.FLAG_IMMUTABLE)
        val stops = PendingIntent.getService(this, 0, stopping(this), PendingIntent.FLAG_IMMUTABLE)
        val icon = Icon.createWithResource(this, android.R.drawable.stat_notify_sync)
        return Notification
            .Builder(this, CHANNEL)
            .setSmallIcon(android.R.drawable.stat_notify_sync)
            .setContentTitle(now.title)
            .setContentText(now.lines.joinToString(" "))
            .setStyle(Notification.BigTextStyle().bigText(now.lines.joinToString("\n")))
            .setContentIntent(opens)
            .setOngoing(true)
            .setOnlyAlertOnce(true)
            .addAction(Notification.Action.Builder(icon, "Stop", stops).build())
            .build()
    }

    companion object {
        private const val LOOK_SECONDS = 10L

        /** What the owner's Start sends. */
        fun starting(context: Context): Intent = Intent(context, PhoneService::class.java)

        /** What the owner's Stop sends. */
        fun stopping(context: Context): Intent = Intent(context, PhoneService::class.java).setAction(STOP)

        /** What the system's start of the phone sends. */
        fun atStart(context: Context): Intent = Intent(context, PhoneService::class.java).setAction(AT_START)
    }
}

/** Starts the device with the phone, and after the app was replaced, if its owner had not stopped it. */
class StartReceiver : BroadcastReceiver() {
    override fun onReceive(
        context: Context,
        intent: Intent,
    ) {
        if (intent.action !in setOf(Intent.ACTION_BOOT_COMPLETED, Intent.ACTION_MY_PACKAGE_REPLACED)) return
        if (!Device.of(context).wish.starts(Start.SYSTEM)) return
        try {
            context.startForegroundService(PhoneService.atStart(context))
        } catch (error: IllegalStateException) {
            // Some makers forbid it although Android does not.
            log.warning("this phone does not let the device start by itself (${error.message}): open the app once")
        }
    }
}
