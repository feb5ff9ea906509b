package org.edvit.phone

import android.app.Activity
import android.app.AlertDialog
import android.content.Intent
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.Switch
import android.widget.TextView
import java.io.IOException
import java.util.logging.Logger

/** Says whether the device runs and why not, and lets its owner start, stop, join, choose, and take the log along. */
class MainScreen : Activity() {
    private lateinit var device: Device
    private lateinit var title: TextView
    private lateinit var lines: TextView
    private val changed = ::show

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        device = Device.of(this)
        title = TextView(this).apply { textSize = LARGE }
        lines = TextView(this).apply { setTextIsSelectable(true) }
        val column =
            LinearLayout(this).apply {
                orientation = LinearLayout.VERTICAL
                setPadding(MARGIN, MARGIN, MARGIN, MARGIN)
                setFitsSystemWindows(true)
            }
        listOf(
            title,
            lines,
            button("Start", ::start),
            button("Stop") { startService(PhoneService.stopping(this)) },
        ).forEach(column::addView)
        choices().forEach(column::addView)
        listOf(
            button("Scan a join token", ::scan),
            button("Save the log", ::saveLog),
            button("Leave the fleet", ::leave),
        ).forEach(column::addView)
        setContentView(ScrollView(this).apply { addView(column) })
    }

    override fun onResume() {
        super.onResume()
        device.listen(changed)
        device.look()
    }

    override fun onPause() {
        device.forget(changed)
        super.onPause()
    }

    override fun onRequestPermissionsResult(
        request: Int,
        permissions: Array<String>,
        results: IntArray,
    ) {
        // Whatever was answered: without notifications it runs, and what it cannot do without is said on this screen.
        if (request == TO_START) startForegroundService(PhoneService.starting(this))
        if (request == TO_SCAN && device.permissions().toScan().isEmpty()) scan()
    }

    override fun onActivityResult(
        request: Int,
        result: Int,
        data: Intent?,
    ) {
        if (result != RESULT_OK || data == null) return
        when (request) {
            SCANNED -> data.getStringExtra(ScanScreen.TOKEN)?.let(device::join)
            SAVED -> writeLog(data)
        }
    }

    private fun start() {
        val missing = device.permissions().toAskAtStart()
        if (missing.isEmpty()) {
            startForegroundService(PhoneService.starting(this))
        } else {
            requestPermissions(missing.map { it.androidName }.toTypedArray(), TO_START)
        }
    }

    private fun scan() {
        val missing = device.permissions().toScan()
        if (missing.isEmpty()) {
            startActivityForResult(Intent(this, ScanScreen::class.java), SCANNED)
        } else {
            requestPermissions(missing.map { it.androidName }.toTypedArray(), TO_SCAN)
        }
    }

    private fun leave() {
        AlertDialog
            .Builder(this)
            .setMessage("Forget the fleet, so that another can adopt this phone?")
            .setPositiveButton("Leave") { _, _ -> device.leave() }
            .setNegativeButton("Stay", null)
            .show()
    }

    private fun choices(): List<View> {
        val now = { Choices.load((application as PhoneApplication).values) }
        val floor =
            EditText(this).apply {
                inputType = android.text.InputType.TYPE_CLASS_NUMBER
                setText(now().batteryFloor.toString())
            }
        return listOf(
            switch("Only while charging", now().chargingOnly) { device.choose(now().copy(chargingOnly = it)) },
            switch("Only on Wi-Fi", now().wifiOnly) { device.choose(now().copy(wifiOnly = it)) },
            switch("Compute on the GPU, if this app can", now().gpu) { device.choose(now().copy(gpu = it)) },
            TextView(this).apply { text = "Percent of the battery below which it pauses" },
            floor,
            button("Set") {
                floor.text
                    .toString()
                    .toIntOrNull()
                    ?.let { device.choose(now().copy(batteryFloor = it)) }
            },
        )
    }

    private fun saveLog() {
        val intent =
            Intent(Intent.ACTION_CREATE_DOCUMENT)
                .addCategory(Intent.CATEGORY_OPENABLE)
                .setType("text/plain")
                .putExtra(Intent.EXTRA_TITLE, "edvit-device.log")
        startActivityForResult(intent, SAVED)
    }

    private fun writeLog(place: Intent) {
        try {
            place.data?.let(contentResolver::openOutputStream)?.bufferedWriter()?.use { writer ->
                (application as PhoneApplication).journal.read(Int.MAX_VALUE, follow = false) { line ->
                    if (line != null) writer.appendLine(line)
                    true
                }
            }
        } catch (error: IOException) {
            log.warning("the log could not be saved: ${error.message}")
        }
    }

    private fun show() {
        val now = explain(device.situation)
        title.text = now.title
        lines.text = now.lines.joinToString("\n")
    }

    private fun button(
        label: String,
        pressed: () -> Unit,
    ) = Button(this).apply {
        text = label
        setOnClickListener { pressed() }
    }

    private fun switch(
        label: String,
        on: Boolean,
        turned: (Boolean) -> Unit,
    ) = Switch(this).apply {
        text = label
        isChecked = on
        setOnCheckedChangeListener { _, now -> turned(now) }
    }

    private companion object {
        const val TO_START = 1
        const val TO_SCAN = 2
        const val SCANNED = 3
        const val SAVED = 4
        const val LARGE = 28f
        const val MARGIN = 48
        val log: Logger = Logger.getLogger(MainScreen::class.java.name)
    }
}
