package org.edvit.agent.store

import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.FileAlreadyExistsException
import java.nio.file.Path
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.StandardOpenOption.APPEND
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.WRITE
import java.nio.file.attribute.PosixFilePermissions
import java.nio.file.Files as Paths

/** A file that grows; every function may throw IOException. */
interface OpenFile : Closeable {
    /** Append all of the data. */
    fun write(data: ByteArray)

    /** Return when the file's bytes survive a power cut. */
    fun sync()
}

/**
 * Everything that a store changes on its disk, one small operation at a time; every function may throw IOException.
 *
 * A new, renamed or removed name survives a power cut only after `syncFolder`. Tests put in place of [LocalFiles] a disk that
 * is full, that loses its power, or whose process is killed, at any one of these operations.
 */
interface Files {
    /** Make one folder whose parent is there. */
    fun makeFolder(path: Path)

    /** Open a file at its end; make it (mode 0600) when there is none. */
    fun append(path: Path): OpenFile

    /** Put a file in the place of another, which may be there. */
    fun rename(
        source: Path,
        target: Path,
    )

    /** Remove a file; one that is not there is no error. */
    fun remove(path: Path)

    /** Return when the names in the folder survive a power cut. */
    fun syncFolder(path: Path)

    /** Bytes that this process may still write there. */
    fun freeBytes(path: Path): Long
}

/** The disk of this machine. */
open class LocalFiles : Files {
    override fun makeFolder(path: Path) {
        try {
            Paths.createDirectory(path)
        } catch (error: FileAlreadyExistsException) {
            if (!Paths.isDirectory(path)) throw error
        }
    }

    override fun append(path: Path): OpenFile = LocalFile(path)

    override fun rename(
        source: Path,
        target: Path,
    ) {
        Paths.move(source, target, ATOMIC_MOVE)
    }

    override fun remove(path: Path) {
        Paths.deleteIfExists(path)
    }

    override fun syncFolder(path: Path) {
        FileChannel.open(path, READ).use { it.force(true) }
    }

    override fun freeBytes(path: Path): Long = Paths.getFileStore(path).usableSpace
}

/** A file on the disk of this machine, open at its end. */
open class LocalFile(
    path: Path,
) : OpenFile {
    private val channel = FileChannel.open(path, setOf(WRITE, CREATE, APPEND), OWNER_ALONE)

    override fun write(data: ByteArray) {
        val rest = ByteBuffer.wrap(data)
        while (rest.hasRemaining()) channel.write(rest)
    }

    override fun sync() = channel.force(true)

    override fun close() = channel.close()

    private companion object {
        val OWNER_ALONE = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"))
    }
}
