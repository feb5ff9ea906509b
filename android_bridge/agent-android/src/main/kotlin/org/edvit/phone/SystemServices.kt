package org.edvit.phone

import android.content.Context

/** A service of the system that every phone has. */
internal inline fun <reified T : Any> Context.system(): T = checkNotNull(getSystemService(T::class.java))
