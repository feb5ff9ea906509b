package org.edvit.phone

/**
 * What Android asks the phone's owner for, and why we want it.
 *
 * Names are text: those of Android 13 and 17 are newer than the oldest phone. `since` is the release (API level) that asks
 * for it at run time, and `target` the one that the app must be made for to be asked.
 */
enum class Permission(
    val androidName: String,
    val since: Int,
    val target: Int,
    val why: String,
) {
    NOTIFICATIONS("android.permission.POST_NOTIFICATIONS", 33, 33, "to show that it runs, with a button that stops it"),
    LOCAL_NETWORK("android.permission.ACCESS_LOCAL_NETWORK", 37, 37, "so that the other machines in this network reach it"),
    CAMERA("android.permission.CAMERA", 23, 23, "to scan the QR code of a join token, and for nothing else"),
}

/** Which permissions are missing, on a phone of release `sdk` with an app that is made for release `target`. */
class Permissions(
    private val sdk: Int,
    private val target: Int,
    private val granted: (String) -> Boolean,
) {
    /** What to ask for when the owner starts the device; nothing before that. */
    fun toAskAtStart(): List<Permission> = missing(Permission.NOTIFICATIONS, Permission.LOCAL_NETWORK)

    /** Without these it cannot be a device at all. */
    fun withoutWhichNothing(): List<Permission> = missing(Permission.LOCAL_NETWORK)

    /** What to ask for when the owner wants to scan. */
    fun toScan(): List<Permission> = missing(Permission.CAMERA)

    private fun missing(vararg wanted: Permission): List<Permission> =
        wanted.filter { sdk >= it.since && target >= it.target && !granted(it.androidName) }
}
