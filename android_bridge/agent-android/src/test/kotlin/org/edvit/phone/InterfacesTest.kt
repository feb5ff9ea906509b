package org.edvit.phone

import org.codehaus.mojo.animal_sniffer.Clazz
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.objectweb.asm.ClassReader
import org.objectweb.asm.ClassVisitor
import org.objectweb.asm.FieldVisitor
import org.objectweb.asm.MethodVisitor
import org.objectweb.asm.Opcodes
import java.io.ObjectInputStream
import java.nio.file.Path
import java.util.TreeSet
import java.util.zip.GZIPInputStream
import kotlin.io.path.Path
import kotlin.io.path.extension
import kotlin.io.path.inputStream
import kotlin.io.path.readBytes
import kotlin.io.path.walk

/**
 * Which of Android's interfaces this module calls, held against the public ones of Android 8.
 *
 * We compile against Android itself, where hidden interfaces are as visible as public ones, and newer ones as old ones. What Android 8's
 * SDK does not have stands here, with the release (API level) since which it is public.
 * One that is newer than the oldest phone names the class that asks for the release before it calls it.
 */
class InterfacesTest {
    private class Newer(
        val since: Int,
        val guard: String = "",
    )

    private val newer =
        mapOf(
            "android/app/Service.startForeground(ILandroid/app/Notification;I)V" to Newer(29),
            "android/os/PowerManager.getCurrentThermalStatus()I" to Newer(29),
            "android/os/PowerManager.getThermalHeadroom(I)F" to Newer(30, "AndroidSensors"),
        )
    private val android8 = Public(Path(System.getProperty("edvit.android8")))
    private val calls = Calls(Path("target/classes")).all

    @Test
    fun `what is called of Android is public since Android 8, or stands here`() {
        assertTrue(calls.size > MANY, "the calls are read")
        assertEquals(newer.keys, calls.keys.filterNot(android8::has).toSet())
    }

    @Test
    fun `what the oldest phone has not is asked for first`() {
        for ((member, line) in newer.filterValues { it.since > OLDEST }) {
            val guard = "org/edvit/phone/${line.guard}"
            assertEquals(setOf(guard), calls[member], member)
            assertTrue(guard in calls.getValue("android/os/Build\$VERSION.SDK_INT#I"), "$guard does not ask for the release")
        }
    }

    @Test
    fun `a hidden interface would be found out`() {
        val member = "android/os/ServiceManager.getService(Ljava/lang/String;)Landroid/os/IBinder;"
        assertEquals(listOf(member), Calls(Path("target/test-classes")).all.keys.filterNot(android8::has))
    }

    private companion object {
        const val OLDEST = 29
        const val MANY = 100
    }
}

/** What a hidden interface looks like; never run. */
@Suppress("unused")
private fun hidden() = android.os.ServiceManager.getService("power")

/** What a signature file of animal-sniffer knows: all that is public of a release. */
private class Public(
    file: Path,
) {
    private val classes =
        ObjectInputStream(GZIPInputStream(file.inputStream())).use { input ->
            generateSequence { input.readObject() as Clazz? }.associateBy { it.name }
        }

    fun has(member: String): Boolean {
        val (owner, rest) = member.split('.', limit = 2)
        return has(owner, rest)
    }

    private fun has(
        owner: String?,
        member: String,
    ): Boolean {
        val known = classes[owner] ?: return false
        if (member in known.signatures) return true
        // A constructor is nobody's heir.
        return !member.startsWith("<") && (listOf(known.superClass) + known.superInterfaces).any { has(it, member) }
    }
}

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
                    declared.getValue(name) += "$field#$descriptor"
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
    ) = hear(from, owner, "$name#$descriptor")
}
