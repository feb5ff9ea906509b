package org.edvit.agent.store

import java.nio.file.Path
import kotlin.io.path.createDirectory
import kotlin.io.path.isDirectory
import kotlin.io.path.listDirectoryEntries
import kotlin.io.path.name
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes

/** No handler of errors runs when the power is gone. */
class PowerCut : Error()

/** Whether something that was not synced survives: "name" or "data", and where. */
fun interface Survives {
    fun survives(
        kind: String,
        place: String,
    ): Boolean
}

/**
 * The folder `root` on a real disk, and beside it what of it would survive.
 *
 * Operation number `cut` (from 1) and all after it throw [PowerCut]; a write that is cut leaves half of its bytes. What is in
 * the folder at the beginning counts as synced. With `forgets` a file's bytes are never synced, as by a store that forgets to.
 */
class Disk(
    private val root: Path,
    private val cut: Int,
    private val forgets: Boolean = false,
) : LocalFiles() {
    private class Node(
        var synced: ByteArray,
        var written: ByteArray,
    )

    private class Folder(
        var synced: Map<String, Any>,
        val names: MutableMap<String, Any>,
    )

    private val top = scan(root)
    private var steps = 0

    override fun makeFolder(path: Path) {
        step()
        super.makeFolder(path)
        folder(path.parent).names[path.name] = Folder(emptyMap(), HashMap())
    }

    override fun append(path: Path): OpenFile {
        step()
        val node = folder(path.parent).names.getOrPut(path.name) { Node(ByteArray(0), ByteArray(0)) } as Node
        return Open(path, node)
    }

    override fun rename(
        source: Path,
        target: Path,
    ) {
        step()
        super.rename(source, target)
        folder(target.parent).names[target.name] = checkNotNull(folder(source.parent).names.remove(source.name))
    }

    override fun remove(path: Path) {
        step()
        super.remove(path)
        folder(path.parent).names.remove(path.name)
    }

    override fun syncFolder(path: Path) {
        step()
        folder(path).let { it.synced = HashMap(it.names) }
    }

    override fun freeBytes(path: Path): Long {
        if (steps >= cut) throw PowerCut()
        return super.freeBytes(path)
    }

    /** Write into a new folder what is there when the power is back. */
    fun writeSurvivors(
        target: Path,
        survives: Survives,
    ) = write(top, target, "", survives)

    private fun step() {
        steps += 1
        if (steps >= cut) throw PowerCut()
    }

    private fun folder(path: Path): Folder =
        root.relativize(path).filter { it.name.isNotEmpty() }.fold(top) { inside, name -> inside.names[name.name] as Folder }

    private inner class Open(
        path: Path,
        private val node: Node,
    ) : OpenFile {
        private val file = LocalFile(path)

        override fun write(data: ByteArray) {
            try {
                step()
            } catch (error: PowerCut) {
                if (steps == cut) node.written += data.copyOf(data.size / 2)
                throw error
            }
            file.write(data)
            node.written += data
        }

        override fun sync() {
            step()
            if (!forgets) node.synced = node.written
        }

        override fun close() = file.close()
    }

    private fun scan(path: Path): Folder {
        val names = HashMap<String, Any>()
        for (child in path.listDirectoryEntries()) {
            names[child.name] = if (child.isDirectory()) scan(child) else child.readBytes().let { Node(it, it) }
        }
        return Folder(HashMap(names), names)
    }

    private fun write(
        folder: Folder,
        target: Path,
        where: String,
        survives: Survives,
    ) {
        target.createDirectory()
        // Temporary names are random; the same choice must fall on the same file in every run.
        for (name in (folder.synced.keys + folder.names.keys).sorted()) {
            val old = folder.synced[name]
            val new = folder.names[name]
            val place = "$where/$name"
            when (val child = if (old === new || survives.survives("name", place)) new else old) {
                is Folder -> write(child, target.resolve(name), place, survives)
                is Node -> {
                    val keeps = child.synced.contentEquals(child.written) || survives.survives("data", place)
                    target.resolve(name).writeBytes(if (keeps) child.written else child.synced)
                }
            }
        }
    }
}

/** The real disk where nobody waits for it. */
class Quick : LocalFiles() {
    override fun append(path: Path): OpenFile =
        object : LocalFile(path) {
            override fun sync() = Unit
        }

    override fun syncFolder(path: Path) = Unit
}
