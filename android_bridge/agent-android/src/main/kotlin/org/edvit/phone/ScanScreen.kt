package org.edvit.phone

import android.annotation.SuppressLint
import android.app.Activity
import android.content.Intent
import android.graphics.ImageFormat
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.media.Image
import android.media.ImageReader
import android.os.Bundle
import android.os.Handler
import android.os.HandlerThread
import android.view.Surface
import android.view.SurfaceHolder
import android.view.SurfaceView
import android.widget.LinearLayout
import android.widget.TextView

/** Shows what the camera sees until there is a join token in it. */
class ScanScreen :
    Activity(),
    SurfaceHolder.Callback {
    private lateinit var view: SurfaceView
    private lateinit var sentence: TextView
    private lateinit var thread: HandlerThread
    private lateinit var worker: Handler
    private var camera: CameraDevice? = null
    private var reader: ImageReader? = null

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        view = SurfaceView(this)
        sentence = TextView(this).apply { text = "Point the camera at the QR code of `edvit-tf fleet token --qr`." }
        val column = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        column.addView(sentence)
        column.addView(view)
        setContentView(column)
        thread = HandlerThread("camera").apply { start() }
        worker = Handler(thread.looper)
        view.holder.setFixedSize(WIDTH, HEIGHT)
        view.holder.addCallback(this)
    }

    override fun onDestroy() {
        thread.quitSafely()
        super.onDestroy()
    }

    override fun surfaceCreated(holder: SurfaceHolder) = Unit

    override fun surfaceChanged(
        holder: SurfaceHolder,
        format: Int,
        width: Int,
        height: Int,
    ) {
        if (camera == null) open()
    }

    override fun surfaceDestroyed(holder: SurfaceHolder) {
        camera?.close()
        camera = null
        reader?.close()
        reader = null
    }

    // The screen before this one has asked.
    @SuppressLint("MissingPermission")
    private fun open() {
        val manager = system<CameraManager>()
        try {
            val back = manager.cameraIdList.firstOrNull { facing(manager, it) == CameraCharacteristics.LENS_FACING_BACK }
            val any = back ?: manager.cameraIdList.firstOrNull() ?: return say("This phone has no camera: enter a code on the aggregator.")
            manager.openCamera(any, Opened(), worker)
        } catch (error: CameraAccessException) {
            say("The camera cannot be used: ${error.message}")
        }
    }

    private fun facing(
        manager: CameraManager,
        id: String,
    ): Int? = manager.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING)

    private inner class Opened : CameraDevice.StateCallback() {
        override fun onOpened(opened: CameraDevice) {
            camera = opened
            val pictures = ImageReader.newInstance(WIDTH, HEIGHT, ImageFormat.YUV_420_888, 2)
            reader = pictures
            pictures.setOnImageAvailableListener({ it.acquireLatestImage()?.use(::look) }, worker)
            val surfaces = listOf(view.holder.surface, pictures.surface)
            @Suppress("DEPRECATION") // What replaces it is not in Android 9, and this one goes on.
            opened.createCaptureSession(surfaces, Configured(opened, surfaces), worker)
        }

        override fun onDisconnected(gone: CameraDevice) = gone.close()

        override fun onError(
            broken: CameraDevice,
            error: Int,
        ) {
            broken.close()
            say("The camera cannot be used (error $error): close what else uses it.")
        }
    }

    private inner class Configured(
        private val opened: CameraDevice,
        private val surfaces: List<Surface>,
    ) : CameraCaptureSession.StateCallback() {
        override fun onConfigured(session: CameraCaptureSession) {
            val request = opened.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
            surfaces.forEach(request::addTarget)
            session.setRepeatingRequest(request.build(), null, worker)
        }

        override fun onConfigureFailed(session: CameraCaptureSession) = say("The camera cannot give pictures of this size.")
    }

    private fun look(picture: Image) {
        val plane = picture.planes.first()
        val luma = ByteArray(plane.buffer.remaining()).also(plane.buffer::get)
        val text = QrCodes.find(luma, plane.rowStride, picture.width, picture.height) ?: return
        when (val scanned = QrCodes.read(text)) {
            is Scanned.Other -> say(scanned.sentence)
            is Scanned.Join ->
                runOnUiThread {
                    setResult(RESULT_OK, Intent().putExtra(TOKEN, scanned.word))
                    finish()
                }
        }
    }

    private fun say(what: String) = runOnUiThread { sentence.text = what }

    companion object {
        /** The scanned word in the result. */
        const val TOKEN = "token"
        private const val WIDTH = 1280
        private const val HEIGHT = 720
    }
}
