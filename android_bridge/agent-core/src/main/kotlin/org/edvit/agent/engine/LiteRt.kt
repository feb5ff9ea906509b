package org.edvit.agent.engine

import com.sun.jna.Library
import com.sun.jna.Memory
import com.sun.jna.Native
import com.sun.jna.Pointer
import com.sun.jna.ptr.LongByReference
import com.sun.jna.ptr.PointerByReference
import org.edvit.agent.EdvitError
import java.nio.file.Files
import java.nio.file.Path
import kotlin.io.path.Path
import kotlin.io.path.isRegularFile
import kotlin.io.path.name

/** What we call of LiteRT's C interface (`litert/c/` of google-ai-edge/LiteRT): handles are pointers, 0 is success. */
@Suppress("FunctionName", "ktlint:standard:function-naming")
internal interface LiteRtLibrary : Library {
    fun LiteRtCreateEnvironment(
        options: Int,
        values: Pointer,
        environment: PointerByReference,
    ): Int

    fun LiteRtCreateModelFromFile(
        environment: Pointer,
        path: String,
        model: PointerByReference,
    ): Int

    fun LiteRtCreateOptions(options: PointerByReference): Int

    fun LiteRtSetOptionsHardwareAccelerators(
        options: Pointer,
        accelerators: Int,
    ): Int

    fun LiteRtCreateCompiledModel(
        environment: Pointer,
        model: Pointer,
        options: Pointer,
        compiled: PointerByReference,
    ): Int

    fun LiteRtGetModelSignature(
        model: Pointer,
        index: Long,
        signature: PointerByReference,
    ): Int

    fun LiteRtGetNumSignatureInputs(
        signature: Pointer,
        number: LongByReference,
    ): Int

    fun LiteRtGetNumSignatureOutputs(
        signature: Pointer,
        number: LongByReference,
    ): Int

    fun LiteRtGetSignatureOutputName(
        signature: Pointer,
        index: Long,
        name: PointerByReference,
    ): Int

    fun LiteRtGetSignatureInputTensorByIndex(
        signature: Pointer,
        index: Long,
        tensor: PointerByReference,
    ): Int

    fun LiteRtGetSignatureOutputTensorByIndex(
        signature: Pointer,
        index: Long,
        tensor: PointerByReference,
    ): Int

    fun LiteRtGetRankedTensorType(
        tensor: Pointer,
        type: Pointer,
    ): Int

    fun LiteRtGetCompiledModelInputBufferRequirements(
        compiled: Pointer,
        signature: Long,
        index: Long,
        requirements: PointerByReference,
    ): Int

    fun LiteRtGetCompiledModelOutputBufferRequirements(
        compiled: Pointer,
        signature: Long,
        index: Long,
        requirements: PointerByReference,
    ): Int

    fun LiteRtCreateManagedTensorBufferFromRequirements(
        environment: Pointer,
        type: Pointer,
        requirements: Pointer,
        buffer: PointerByReference,
    ): Int

    fun LiteRtGetTensorBufferPackedSize(
        buffer: Pointer,
        bytes: LongByReference,
    ): Int

    fun LiteRtLockTensorBuffer(
        buffer: Pointer,
        address: PointerByReference,
        mode: Int,
    ): Int

    fun LiteRtUnlockTensorBuffer(buffer: Pointer): Int

    fun LiteRtRunCompiledModel(
        compiled: Pointer,
        signature: Long,
        inputCount: Long,
        inputs: Pointer,
        outputCount: Long,
        outputs: Pointer,
    ): Int

    fun LiteRtDestroyTensorBuffer(buffer: Pointer)

    fun LiteRtDestroyCompiledModel(compiled: Pointer)

    fun LiteRtDestroyOptions(options: Pointer)

    fun LiteRtDestroyModel(model: Pointer)
}

/**
 * LiteRT on a desktop: the shared library of the Python package `ai-edge-litert`, on the CPU.
 *
 * `library` is that file. Its package's version is read from the folder beside it.
 *
 * @throws EdvitError `model.runtime`: there is no such library, or another.
 */
class LiteRt(
    private val library: Path,
) : Runtime {
    private val calls: LiteRtLibrary

    init {
        calls =
            try {
                Native.load(library.toAbsolutePath().toString(), LiteRtLibrary::class.java)
            } catch (error: UnsatisfiedLinkError) {
                throw EdvitError("$library is no library of LiteRT that runs here: $HOW_TO_GET_IT", "model.runtime", error)
            }
    }

    // Never destroyed: models of this process come and go in it.
    private val environment = environment(calls)

    override val name: String = "$PACKAGE/${versionBeside(library)}"

    override fun load(flatbuffer: Path): Model {
        checkIdentifier(flatbuffer)
        return LiteRtModel(calls, environment, flatbuffer)
    }

    override fun verify(
        flatbuffer: Path,
        vector: Path,
    ): Verdict = verifyInChild(library, flatbuffer, vector)

    companion object {
        private const val PACKAGE = "ai-edge-litert"
        private const val IDENTIFIER_END = 8

        // litert_environment_options.h, litert_any.h and litert_logging.h.
        private const val OPTION_BYTES = 24L
        private const val ACCELERATORS = 24
        private const val LOG_SEVERITY = 25
        private const val INTEGER = 2
        private const val ERRORS = 3L
        private const val HOW_TO_GET_IT =
            "pip install ai-edge-litert, and name the libLiteRt.so of that package with --litert or in the variable EDVIT_LITERT"

        /**
         * The library that was named, by an option or in the environment.
         *
         * @throws EdvitError `model.runtime`: none was, or there is none.
         */
        fun find(option: Path?): Path {
            val named =
                option ?: System.getenv("EDVIT_LITERT")?.let(::Path)
                    ?: throw EdvitError("no interpreter was named: $HOW_TO_GET_IT", "model.runtime")
            if (!named.isRegularFile()) throw EdvitError("there is no file $named: $HOW_TO_GET_IT", "model.runtime")
            return named
        }

        /** With the CPU alone, and silent but for errors; a struct of an option is tag, type and value. */
        private fun environment(calls: LiteRtLibrary): Pointer {
            val options = listOf(ACCELERATORS to CPU.toLong(), LOG_SEVERITY to ERRORS)
            val memory = Memory(OPTION_BYTES * options.size).apply { clear() }
            options.forEachIndexed { index, (tag, value) ->
                val place = OPTION_BYTES * index
                memory.setInt(place, tag)
                memory.setInt(place + 8, INTEGER)
                memory.setLong(place + 16, value)
            }
            val environment = PointerByReference()
            val status = calls.LiteRtCreateEnvironment(options.size, memory, environment)
            if (status != 0) throw EdvitError("LiteRT does not start (status $status): $HOW_TO_GET_IT", "model.runtime")
            return environment.value
        }

        private fun versionBeside(library: Path): String {
            val packages = library.toRealPath().parent.parent
            val prefix = "${PACKAGE.replace('-', '_')}-"
            val found = Files.newDirectoryStream(packages, "$prefix*.dist-info").use { it.firstOrNull()?.name }
            return found?.removePrefix(prefix)?.removeSuffix(".dist-info")
                ?: throw EdvitError("the version of $library is unknown, for it is not in its package: $HOW_TO_GET_IT", "model.runtime")
        }

        /** Refuse what is plainly no flatbuffer before native code sees it. */
        private fun checkIdentifier(flatbuffer: Path) {
            val head = ByteArray(IDENTIFIER_END).also { head -> Files.newInputStream(flatbuffer).use { it.read(head) } }
            if (String(head, Charsets.ISO_8859_1).drop(4) != "TFL3") {
                throw EdvitError("${flatbuffer.name} is no TFLite flatbuffer", "model.load")
            }
        }
    }
}

// litert_common.h: kLiteRtHwAcceleratorCpu.
private const val CPU = 1

/** A flatbuffer with one input and the outputs `feature` and `logits`, loaded. */
private class LiteRtModel(
    private val calls: LiteRtLibrary,
    private val environment: Pointer,
    flatbuffer: Path,
) : Model {
    private val name = flatbuffer.name
    private val open = ArrayList<() -> Unit>()
    private lateinit var compiled: Pointer
    private lateinit var input: Buffer
    private lateinit var outputs: Map<String, Buffer>
    private lateinit var inputHandles: Memory
    private lateinit var outputHandles: Memory

    private class Buffer(
        val handle: Pointer,
        val bytes: Int,
    )

    init {
        try {
            load(flatbuffer)
        } catch (error: EdvitError) {
            close()
            throw error
        }
    }

    private fun load(flatbuffer: Path) {
        val model = made("model", calls::LiteRtDestroyModel) { calls.LiteRtCreateModelFromFile(environment, "$flatbuffer", it) }
        val options = made("options", calls::LiteRtDestroyOptions, calls::LiteRtCreateOptions)
        check("choose the CPU") { calls.LiteRtSetOptionsHardwareAccelerators(options, CPU) }
        compiled =
            made("compiled model", calls::LiteRtDestroyCompiledModel) { calls.LiteRtCreateCompiledModel(environment, model, options, it) }
        val signature = got("signature") { calls.LiteRtGetModelSignature(model, 0, it) }
        if (number(signature, calls::LiteRtGetNumSignatureInputs) != 1L) throw failed("take it: it has not one input")
        input =
            buffer(got("input") { calls.LiteRtGetSignatureInputTensorByIndex(signature, 0, it) }) {
                calls.LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, it)
            }
        val count = number(signature, calls::LiteRtGetNumSignatureOutputs)
        outputs =
            (0 until count).associate { index ->
                val named = got("output's name") { calls.LiteRtGetSignatureOutputName(signature, index, it) }.getString(0)
                val tensor = got("output") { calls.LiteRtGetSignatureOutputTensorByIndex(signature, index, it) }
                named to buffer(tensor) { calls.LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, index, it) }
            }
        if (outputs.keys != setOf("feature", "logits")) throw failed("take it: it is no sub-model")
        inputHandles = handles(listOf(input))
        outputHandles = handles(outputs.values.toList())
    }

    override fun run(image: ByteArray): Output {
        if (image.size != input.bytes) throw failed("run it on ${image.size} bytes where ${input.bytes} belong")
        locked(input, WRITE) { it.write(0, image, 0, image.size) }
        check("run it") {
            calls.LiteRtRunCompiledModel(compiled, 0, 1, inputHandles, outputs.size.toLong(), outputHandles)
        }
        return Output(floats("feature"), floats("logits"))
    }

    override fun close() {
        open.reversed().forEach { it() }
        open.clear()
    }

    private fun floats(output: String): FloatArray {
        val buffer = outputs.getValue(output)
        return locked(buffer, READ) { it.getFloatArray(0, buffer.bytes / Float.SIZE_BYTES) }
    }

    private fun <T> locked(
        buffer: Buffer,
        mode: Int,
        work: (Pointer) -> T,
    ): T {
        val address = got("memory") { calls.LiteRtLockTensorBuffer(buffer.handle, it, mode) }
        try {
            return work(address)
        } finally {
            calls.LiteRtUnlockTensorBuffer(buffer.handle)
        }
    }

    private fun buffer(
        tensor: Pointer,
        requirements: (PointerByReference) -> Int,
    ): Buffer {
        val type = Memory(TYPE_BYTES)
        check("read a tensor's type") { calls.LiteRtGetRankedTensorType(tensor, type) }
        val needs = got("requirements", requirements)
        val handle =
            made("buffer", calls::LiteRtDestroyTensorBuffer) {
                calls.LiteRtCreateManagedTensorBufferFromRequirements(environment, type, needs, it)
            }
        val bytes = LongByReference()
        check("measure a buffer") { calls.LiteRtGetTensorBufferPackedSize(handle, bytes) }
        return Buffer(handle, bytes.value.toInt())
    }

    private fun handles(buffers: List<Buffer>): Memory =
        Memory(Native.POINTER_SIZE.toLong() * buffers.size).also { memory ->
            buffers.forEachIndexed { index, buffer -> memory.setPointer(Native.POINTER_SIZE.toLong() * index, buffer.handle) }
        }

    private fun number(
        signature: Pointer,
        call: (Pointer, LongByReference) -> Int,
    ): Long = LongByReference().also { check("read its signature") { call(signature, it) } }.value

    private fun made(
        what: String,
        destroy: (Pointer) -> Unit,
        call: (PointerByReference) -> Int,
    ): Pointer = got(what, call).also { handle -> open += { destroy(handle) } }

    private fun got(
        what: String,
        call: (PointerByReference) -> Int,
    ): Pointer = PointerByReference().also { check("give the $what") { call(it) } }.value

    private fun check(
        what: String,
        call: () -> Int,
    ) {
        val status = call()
        if (status != 0) throw failed("$what (status $status)")
    }

    private fun failed(what: String) = EdvitError("LiteRT could not load or run $name: it did not $what", "model.load")

    private companion object {
        const val READ = 0
        const val WRITE = 1
        const val TYPE_BYTES = 72L
    }
}
