package org.edvit.agent

import org.edvit.agent.bundle.StrictJson
import java.nio.file.Path
import kotlin.io.path.readBytes

/** The files that readers in every language are held against. */
object Vectors {
    val folder: Path = Path.of(checkNotNull(System.getProperty("edvit.vectors")))

    fun bytes(name: String): ByteArray = folder.resolve(name).readBytes()

    fun json(name: String): Map<*, *> = StrictJson.load(bytes(name)) as Map<*, *>

    fun hex(text: Any?): ByteArray = checkNotNull(unhex(text as String))
}
