package org.edvit.phone

import android.app.Service
import android.content.ComponentName
import android.content.Context
import android.content.Intent
import android.content.ServiceConnection
import android.os.Bundle
import android.os.Handler
import android.os.IBinder
import android.os.Looper
import android.os.Message
import android.os.Messenger
import android.os.Process
import android.os.RemoteException
import org.edvit.agent.engine.Verdict
import org.edvit.agent.engine.verify
import java.io.Closeable
import java.nio.file.Path
import java.util.concurrent.atomic.AtomicBoolean
import kotlin.io.path.Path

private const val FLATBUFFER = "flatbuffer"
private const val VECTOR = "vector"
private const val REASON = "reason"
private const val MICROSECONDS = "microseconds"

/** Runs flatbuffers that are new here, in a process of its own (`android:process` in the manifest). */
class ProofService : Service() {
    private val messenger = Messenger(Handler(Looper.getMainLooper(), ::answer))

    override fun onBind(intent: Intent): IBinder = messenger.binder

    override fun onDestroy() {
        super.onDestroy()
        // The next flatbuffer gets a fresh process, and this one's memory is free.
        Process.killProcess(Process.myPid())
    }

    private fun answer(question: Message): Boolean {
        val app = application as PhoneApplication
        val runtime = app.runtime(Choices.load(app.values))
        val verdict = verify(runtime, Path(question.data.getString(FLATBUFFER).orEmpty()), Path(question.data.getString(VECTOR).orEmpty()))
        val reply = Message.obtain()
        reply.data =
            Bundle().apply {
                putString(REASON, verdict.reason)
                putInt(MICROSECONDS, verdict.microseconds)
            }
        try {
            question.replyTo.send(reply)
        } catch (_: RemoteException) {
            // Nobody waits for it any more.
        }
        return true
    }
}

/** The same seen from the app's own process. */
class ProofProcess(
    private val context: Context,
) : Child {
    override fun verify(
        flatbuffer: Path,
        vector: Path,
        done: (Verdict?) -> Unit,
    ): Closeable {
        val connection = Connection(flatbuffer, vector, done)
        if (!context.bindService(Intent(context, ProofService::class.java), connection, Context.BIND_AUTO_CREATE)) connection.died()
        return Closeable { context.unbindService(connection) }
    }

    private class Connection(
        private val flatbuffer: Path,
        private val vector: Path,
        private val done: (Verdict?) -> Unit,
    ) : ServiceConnection {
        private val told = AtomicBoolean()

        override fun onServiceConnected(
            name: ComponentName,
            service: IBinder,
        ) {
            if (told.get()) return
            val question = Message.obtain()
            question.data =
                Bundle().apply {
                    putString(FLATBUFFER, "$flatbuffer")
                    putString(VECTOR, "$vector")
                }
            question.replyTo =
                Messenger(
                    Handler(Looper.getMainLooper()) { answer ->
                        tell(Verdict(answer.data.getString(REASON).orEmpty(), answer.data.getInt(MICROSECONDS)))
                        true
                    },
                )
            try {
                Messenger(service).send(question)
            } catch (_: RemoteException) {
                died()
            }
        }

        override fun onServiceDisconnected(name: ComponentName) = died()

        override fun onNullBinding(name: ComponentName) = died()

        fun died() = tell(null)

        private fun tell(verdict: Verdict?) {
            if (!told.compareAndSet(false, true)) return
            // Whoever waits may take a moment, and this is the thread of the screen.
            Thread { done(verdict) }.start()
        }
    }
}
