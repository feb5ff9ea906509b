package org.edvit.agent.engine

import com.google.gson.Gson
import com.google.gson.JsonSyntaxException
import org.edvit.agent.EdvitError
import org.edvit.agent.bundle.TestVector
import java.io.File
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlin.io.path.Path
import kotlin.io.path.name
import kotlin.io.path.readBytes
import kotlin.math.sqrt

// Right interpreters reach 0.997 and more, wrong ones 0.27 and less.
private const val LEAST_COSINE = 0.98
private const val MEASURED_RUNS = 7
private const val TIMEOUT_SECONDS = 120L
private const val SIGNALLED = 128

/** Run a flatbuffer on its test vector in this process, which a bad flatbuffer can end. */
fun verify(
    runtime: Runtime,
    flatbuffer: Path,
    vector: Path,
): Verdict =
    try {
        val expected = TestVector.read(vector.readBytes())
        runtime.load(flatbuffer).use { judge(it, runtime.name, flatbuffer.name, expected) }
    } catch (error: EdvitError) {
        Verdict(error.message)
    }

private fun judge(
    model: Model,
    runtime: String,
    name: String,
    expected: TestVector,
): Verdict {
    val output = model.run(expected.image)
    if (!(output.feature + output.logits).all { it.isFinite() }) {
        return Verdict("$runtime answers $name with numbers that are not finite.")
    }
    if (output.feature.size != expected.feature.size || output.logits.size != expected.logits.size) {
        return Verdict("$name does not belong to its test vector.")
    }
    val feature = cosine(output.feature, expected.feature)
    val logits = cosine(output.logits, expected.logits)
    if (minOf(feature, logits) < LEAST_COSINE) {
        return Verdict(
            "$runtime answers $name wrongly (cosine %.3f for the feature, %.3f for the logits, at least $LEAST_COSINE expected): "
                .format(feature, logits) + "use another format or a newer interpreter.",
        )
    }
    val times = (1..MEASURED_RUNS).map { System.nanoTime().let { start -> model.run(expected.image).let { System.nanoTime() - start } } }
    return Verdict("", maxOf(1, (times.sorted()[MEASURED_RUNS / 2] / 1000).toInt()))
}

/** The cosine between two arrays; 1 when both are zero, 0 when one is. */
internal fun cosine(
    one: FloatArray,
    other: FloatArray,
): Double {
    val dot = one.indices.sumOf { one[it].toDouble() * other[it] }
    val length = sqrt(one.sumOf { it.toDouble() * it }) * sqrt(other.sumOf { it.toDouble() * it })
    if (length == 0.0) return if (one.all { it == 0f } && other.all { it == 0f }) 1.0 else 0.0
    return dot / length
}

/** Do what [verify] does in a child process: a crash, or no answer in time, is a verdict. */
internal fun verifyInChild(
    library: Path,
    flatbuffer: Path,
    vector: Path,
): Verdict {
    val java = Path(System.getProperty("java.home"), "bin", "java").toString()
    // A crash is expected here: no core, no report.
    val options = listOf("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-CreateCoredumpOnCrash", "-XX:ErrorFile=/dev/null")
    val command =
        listOf(java) + options +
            listOf("-cp", System.getProperty("java.class.path"), "org.edvit.agent.engine.CheckKt", "$library", "$flatbuffer", "$vector")
    val child = ProcessBuilder(command).redirectError(File("/dev/null")).start()
    try {
        child.outputStream.close()
        // The verdict is a line: it fits into the pipe, and the child ends without our reading it.
        if (!child.waitFor(TIMEOUT_SECONDS, TimeUnit.SECONDS)) {
            return Verdict("${flatbuffer.name} gave no answer to its test vector in $TIMEOUT_SECONDS s.")
        }
        val status = child.exitValue()
        if (status > SIGNALLED) return Verdict("${flatbuffer.name} crashed the interpreter (signal ${status - SIGNALLED}).")
        if (status != 0) return Verdict("${flatbuffer.name} could not be checked (exit status $status).")
        return Gson().fromJson(child.inputStream.reader().readText(), Verdict::class.java)
    } catch (error: JsonSyntaxException) {
        return Verdict("${flatbuffer.name} could not be checked: ${error.message}")
    } finally {
        child.destroyForcibly()
    }
}

/** What the child runs: the library, the flatbuffer, the test vector; prints the verdict as one JSON object. */
fun main(arguments: Array<String>) {
    val (library, flatbuffer, vector) = arguments.map(::Path)
    println(Gson().toJson(verify(LiteRt(library), flatbuffer, vector)))
}
