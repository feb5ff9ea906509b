package org.edvit.phone

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.objectweb.asm.ClassReader
import org.objectweb.asm.ClassVisitor
import org.objectweb.asm.FieldVisitor
import org.objectweb.asm.MethodVisitor
import org.objectweb.asm.Opcodes
import java.nio.file.Path
import java.util.TreeSet
import kotlin.io.path.Path
import kotlin.io.path.extension
import kotlin.io.path.readBytes
import kotlin.io.path.readLines
import kotlin.io.path.walk

/**
 * Which of Android's interfaces this module calls, held against `android-interfaces.txt`.
 *
 * We compile against Android itself, where hidden interfaces are as visible as public ones, and newer ones as old ones. So each that
 * is called stands in that file, with the release (API level) since which it is public, written by hand.
 * One that is newer than the oldest phone names the class that asks for the release before it calls it.
 */
class InterfacesTest {
    private class Line(
        val since: Int,
        val member: String,
        val guard: String,
    )

    private val classes = Path("target/classes")
    private val lines =
        Path("src/test/resources/android-interfaces.txt").readLines().filter { it.isNotBlank() && !it.startsWith("#") }.map {
            val parts = it.split(' ')
            Line(parts[0].toInt(), parts[1], parts.getOrElse(2) { "" })
        }

    @Test
    fun `what is called of Android is what was looked up`() {
        val called = Calls(classes).all.keys
        val known = lines.map { it.member }.toSet()
        assertEquals("", (called - known).joinToString("\n"), "not looked up yet")
        assertEquals("", (known - called).joinToString("\n"), "not called any more")
    }

    @Test
    fun `what the oldest phone has not is asked for first`() {
        val calls = Calls(classes).all
        val newer = lines.filter { it.since > OLDEST }
        assertTrue(newer.isNotEmpty())
        for (line in newer) {
            assertEquals(setOf("org/edvit/phone/${line.guard}"), calls[line.member], line.member)
            assertTrue(
                Calls.readsRelease(classes.resolve("org/edvit/phone/${line.guard}.class")),
                "${line.guard} does not ask for the release",
            )
        }
    }

    @Test
    fun `what Android itself marks as hidden is not called`() {
        assertTrue(isMarked("android/os/ServiceManager.getService(Ljava/lang/String;)Landroid/os/IBinder;"), "the marks are there")
        assertEquals(emptyList<String>(), lines.map { it.member }.filter(::isMarked))
    }

    /** Android's archive has a file for each class some of whose hidden members old apps may go on using. */
    private fun isMarked(member: String): Boolean {
        val (owner, rest) = member.split('.', limit = 2)
        val marks = javaClass.classLoader.getResourceAsStream("${owner.replace('$', '.')}.uau") ?: return false
        return marks.bufferedReader().useLines { all -> all.any { it.startsWith("L$owner;->$rest,") || it.startsWith("L$owner;->$rest:") } }
    }

    @Test
    fun `a hidden interface would be found out`() {
        val member = "android/os/ServiceManager.getService(Ljava/lang/String;)Landroid/os/IBinder;"
        assertTrue(Calls(Path("target/test-classes")).all.keys.contains(member))
    }

    private companion object {
        const val OLDEST = 29
    }
}

/** What a hidden interface looks like; never run. */
@Suppress("unused")
private fun hidden() = android.os.ServiceManager.getService("power")

/** Every method and field of Android that compiled classes name, each with the classes that do. */
private class Calls(
    folder: Path,
) {
    private val parents = HashMap<String, String>()
    private val declared = HashMap<String, MutableSet<String>>()
    private val found = ArrayList<Triple<String, String, String>>()

    init {
        folder.walk().filter { it.extension == "class" }.forEach(::read)
    }

    val all: Map<String, Set<String>> =
        found
            .mapNotNull { (from, owner, member) ->
                var holder: String? = owner
                // What is inherited is called by the name of our class.
                while (holder != null && holder in parents && member !in declared.getValue(holder)) holder = parents[holder]
                holder?.takeIf { it.startsWith("android/") }?.let { "$it.$member" to from }
            }.groupBy({ it.first }, { it.second })
            .mapValues { (_, from) -> TreeSet(from) }

    private fun read(file: Path) {
        ClassReader(file.readBytes()).accept(
            object : ClassVisitor(Opcodes.ASM9) {
                private lateinit var name: String

                override fun visit(
                    version: Int,
                    access: Int,
                    name: String,
                    signature: String?,
                    superName: String?,
                    interfaces: Array<String>?,
                ) {
                    this.name = name
                    superName?.let { parents[name] = it }
                    declared[name] = HashSet()
                }

                override fun visitField(
                    access: Int,
                    field: String,
                    descriptor: String,
                    signature: String?,
                    value: Any?,
                ): FieldVisitor? {
                    declared.getValue(name) += field
                    return null
                }

                override fun visitMethod(
                    access: Int,
                    method: String,
                    descriptor: String,
                    signature: String?,
                    exceptions: Array<String>?,
                ): MethodVisitor {
                    declared.getValue(name) += method + descriptor
                    return Body(name) { from, owner, member -> found += Triple(from, owner, member) }
                }
            },
            0,
        )
    }

    companion object {
        fun readsRelease(file: Path): Boolean {
            var reads = false
            val body = { Body("") { _, owner, member -> reads = reads || "$owner.$member" == "android/os/Build\$VERSION.SDK_INT" } }
            ClassReader(file.readBytes()).accept(
                object : ClassVisitor(Opcodes.ASM9) {
                    override fun visitMethod(
                        access: Int,
                        method: String,
                        descriptor: String,
                        signature: String?,
                        exceptions: Array<String>?,
                    ): MethodVisitor = body()
                },
                0,
            )
            return reads
        }
    }
}

private class Body(
    private val from: String,
    private val hear: (from: String, owner: String, member: String) -> Unit,
) : MethodVisitor(Opcodes.ASM9) {
    override fun visitMethodInsn(
        opcode: Int,
        owner: String,
        name: String,
        descriptor: String,
        isInterface: Boolean,
    ) = hear(from, owner, name + descriptor)

    override fun visitFieldInsn(
        opcode: Int,
        owner: String,
        name: String,
        descriptor: String,
    ) = hear(from, owner, name)
}
