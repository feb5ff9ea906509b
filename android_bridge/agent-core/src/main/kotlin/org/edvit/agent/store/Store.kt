package org.edvit.agent.store

import org.edvit.agent.EdvitError
import org.edvit.agent.hex
import org.edvit.agent.sha256
import org.edvit.agent.updateFrom
import java.io.Closeable
import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.channels.OverlappingFileLockException
import java.nio.file.NoSuchFileException
import java.nio.file.Path
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.WRITE
import java.security.SecureRandom
import kotlin.io.path.listDirectoryEntries
import kotlin.io.path.name
import java.nio.file.Files as Paths

private const val TEMPORARY = ".part"

/**
 * What a device keeps on disk: blobs named by their SHA-256, and small files. The layout is that of the Python device.
 *
 * Every file appears whole or not at all: it is written under a temporary name, synced, renamed, and the folder synced. A blob
 * that is still on its way in keeps its temporary file, so that it can go on where it was broken off. One process at a time
 * holds the folder.
 *
 * @throws EdvitError when the folder cannot be made or another process holds it.
 */
class Store(
    val path: Path,
    private val files: Files = LocalFiles(),
) : Closeable {
    private val blobs = path.resolve("blobs")
    private val lock: FileChannel

    init {
        lock =
            clearly(path) {
                make(blobs)
                FileChannel.open(path.resolve("lock"), WRITE, CREATE)
            }
        if (!held(lock)) {
            lock.close()
            throw EdvitError("another device runs on the store $path: give this one a --store of its own", "device.store_in_use")
        }
        clearly(path) { names(path).filter { it.name.endsWith(TEMPORARY) }.forEach(files::remove) }
    }

    /** Let another process have the folder. */
    override fun close() = lock.close()

    /** The bytes of a small file, null when there is none. */
    fun read(name: String): ByteArray? =
        clearly(path) {
            try {
                Paths.readAllBytes(path.resolve(name))
            } catch (_: NoSuchFileException) {
                null
            }
        }

    /** Write a small file (mode 0600), whole or not at all. */
    fun write(
        name: String,
        data: ByteArray,
    ) {
        val target = path.resolve(name)
        val temporary = path.resolve("$name.${hex(ByteArray(4).also(RANDOM::nextBytes))}$TEMPORARY")
        clearly(path) {
            try {
                files.append(temporary).use {
                    it.write(data)
                    it.sync()
                }
                files.rename(temporary, target)
                files.syncFolder(path)
            } catch (error: IOException) {
                files.remove(temporary)
                throw error
            }
        }
    }

    /** Forget a small file. */
    fun forget(name: String) =
        clearly(path) {
            files.remove(path.resolve(name))
            files.syncFolder(path)
        }

    /** Where the blob with this hash is, or would be. */
    fun blob(sha256: String): Path = blobs.resolve(sha256)

    /** Keep a small blob and return its SHA-256. */
    fun add(data: ByteArray): String {
        val name = hex(sha256(data))
        if (!intact(name)) {
            receive(data.size.toLong(), name).use {
                it.write(data)
                it.keep()
            }
        }
        return name
    }

    /** How many of the blob's `size` bytes are here already, perhaps all. */
    fun received(
        size: Long,
        sha256: String,
    ): Long {
        if (intact(sha256)) return size
        val there =
            try {
                Paths.size(part(sha256))
            } catch (_: IOException) {
                0L
            }
        return if (there <= size) there else 0L
    }

    /**
     * Take a blob of `size` bytes piece by piece, the first of which follows the `after` that are here.
     *
     * @throws EdvitError the disk has no room for it (`device.disk_full`), or cannot be used.
     */
    fun receive(
        size: Long,
        sha256: String,
        after: Long = 0,
    ): Incoming =
        clearly(path) {
            val free = files.freeBytes(path)
            if (free < size - after + SPARE_BYTES) {
                throw EdvitError(
                    "the disk of the store $path is full: ${size - after} bytes are to come and $free are free",
                    "device.disk_full",
                )
            }
            Incoming(files, part(sha256), blob(sha256), size, after)
        }

    /** Whether the blob is there and still is what its name says. */
    fun intact(sha256: String): Boolean =
        try {
            val digest = sha256()
            Paths.newInputStream(blob(sha256)).use(digest::updateFrom)
            hex(digest.digest()) == sha256
        } catch (_: IOException) {
            false
        }

    /** Delete every other blob, and all that are still on their way in. */
    fun keepOnly(hashes: Set<String>) =
        clearly(path) {
            names(blobs).filter { it.name !in hashes }.sorted().forEach(files::remove)
        }

    private fun part(sha256: String): Path = blobs.resolve("$sha256$TEMPORARY")

    /** Make a folder and its parents so that a power cut takes none of them away again. */
    private fun make(folder: Path) {
        if (Paths.isDirectory(folder)) return
        folder.toAbsolutePath().parent?.let(::make)
        files.makeFolder(folder)
        files.syncFolder(folder.toAbsolutePath().parent)
    }

    private fun names(folder: Path): List<Path> = folder.listDirectoryEntries()

    private fun held(channel: FileChannel): Boolean =
        try {
            channel.tryLock() != null
        } catch (_: OverlappingFileLockException) {
            false
        }

    companion object {
        /** A file system needs some for itself: names, and the small file that says what is installed. */
        const val SPARE_BYTES = 64L shl 10
        private val RANDOM = SecureRandom()
    }
}

/**
 * A blob on its way in; every function may throw EdvitError, a full disk among the reasons.
 *
 * What is not kept when it is closed stays as far as it came, unless the bytes or the disk were wrong.
 */
class Incoming internal constructor(
    private val files: Files,
    private val part: Path,
    private val target: Path,
    size: Long,
    after: Long,
) : Closeable {
    private val digest = sha256()
    private var file: OpenFile? = null

    /** Bytes that are still to come. */
    var missing: Long = size - after
        private set

    init {
        if (after > 0) Paths.newInputStream(part).use(digest::updateFrom) else files.remove(part)
    }

    /** Append; more than was announced is refused. */
    fun write(data: ByteArray) {
        if (data.size > missing) {
            discard()
            throw EdvitError("more bytes came than the manifest announces", "device.size")
        }
        carefully { open().write(data) }
        digest.update(data)
        missing -= data.size
    }

    /** Put the blob in its place, if it is the one that was named. */
    fun keep() {
        if (missing > 0) throw EdvitError("$missing bytes are missing", "device.size")
        if (hex(digest.digest()) != target.name) {
            discard()
            throw EdvitError("the bytes that came do not have the manifest's SHA-256", "device.hash")
        }
        carefully {
            open().sync()
            close()
            files.rename(part, target)
            files.syncFolder(target.parent)
        }
    }

    override fun close() {
        file?.close()
        file = null
    }

    private fun open(): OpenFile = file ?: files.append(part).also { file = it }

    private fun discard() {
        close()
        files.remove(part)
    }

    private fun carefully(work: () -> Unit) =
        clearly(target.parent.parent) {
            try {
                work()
            } catch (error: IOException) {
                discard()
                throw error
            }
        }
}

private val FULL = listOf("No space left on device", "Disk quota exceeded")

/** Do something with a store's disk, and say in a sentence what is wrong with it. */
private inline fun <T> clearly(
    path: Path,
    work: () -> T,
): T =
    try {
        work()
    } catch (error: IOException) {
        val reason = error.message.orEmpty()
        if (FULL.any { it in reason }) throw EdvitError("the disk of the store $path is full", "device.disk_full", error)
        throw EdvitError("cannot use the store $path: ${reason.ifEmpty { error.javaClass.simpleName }}", "device.store", error)
    }
