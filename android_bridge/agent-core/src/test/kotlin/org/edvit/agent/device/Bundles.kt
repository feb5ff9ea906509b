package org.edvit.agent.device

import com.google.protobuf.ByteString
import org.bouncycastle.crypto.params.Ed25519PrivateKeyParameters
import org.bouncycastle.crypto.signers.Ed25519Signer
import org.edvit.agent.Vectors
import org.edvit.agent.bundle.BundleKey
import org.edvit.agent.bundle.ManifestReader
import org.edvit.agent.engine.Model
import org.edvit.agent.engine.Output
import org.edvit.agent.engine.Runtime
import org.edvit.agent.engine.Verdict
import org.edvit.agent.rpc.Parts
import org.edvit.agent.sha256
import org.edvit.agent.store.Files
import org.edvit.agent.store.Store
import org.edvit.rpc.InstallHeader
import org.edvit.rpc.InstallReply
import org.edvit.rpc.InstallRequest
import org.edvit.rpc.Settle
import java.nio.file.Path

/** The golden bundle in some version, signed by an owner of the tests. */
class SignedBundle(
    version: Int,
) {
    val manifestBytes: ByteArray =
        String(Vectors.bytes("bundle/manifest.json")).replace("\n  \"version\": 1\n", "\n  \"version\": $version\n").toByteArray()
    val manifest = ManifestReader.parse(manifestBytes)

    /** What is sent to install a sub-model in a format; a piece spans flatbuffer and vector. */
    fun parts(
        submodel: Int,
        format: String,
    ): List<InstallRequest> {
        val chosen = manifest.submodels[submodel]
        val variant = chosen.variants.first { it.format == format }
        val header =
            InstallHeader
                .newBuilder()
                .setManifest(ByteString.copyFrom(manifestBytes))
                .setSubmodel(chosen.id)
                .setVariant(variant.file)
                .setSignature(ByteString.copyFrom(sign(manifestBytes)))
        val data = Vectors.bytes("bundle/${variant.file}") + Vectors.bytes("bundle/${variant.testVector}")
        val pieces = data.toList().chunked(PIECE) { ByteString.copyFrom(it.toByteArray()) }
        return listOf(InstallRequest.newBuilder().setHeader(header).build()) +
            pieces.map { InstallRequest.newBuilder().setChunk(it).build() }
    }

    /** What is sent to keep this bundle and let the other one go. */
    val settle: List<InstallRequest>
        get() {
            val digest = ByteString.copyFrom(sha256(manifestBytes))
            return listOf(InstallRequest.newBuilder().setSettle(Settle.newBuilder().setManifest(digest)).build())
        }

    companion object {
        private const val PIECE = 10_007
        private val owner = Ed25519PrivateKeyParameters(ByteArray(Ed25519PrivateKeyParameters.KEY_SIZE) { it.toByte() })
        val key = BundleKey(owner.generatePublicKey().encoded)

        fun sign(data: ByteArray): ByteArray {
            val signer = Ed25519Signer().apply { init(true, owner) }
            signer.update(data, 0, data.size)
            return signer.generateSignature()
        }
    }
}

/** An interpreter that takes whatever has the right hash, so that a thousand restarts take seconds. */
object Agreeable : Runtime {
    override val name = "ai-edge-litert/2.3.0"

    override fun load(flatbuffer: Path): Model =
        object : Model {
            override fun run(image: ByteArray) = Output(FloatArray(1), FloatArray(1))

            override fun close() = Unit
        }

    override fun verify(
        flatbuffer: Path,
        vector: Path,
    ) = Verdict("", 1)
}

/** A device on a store, until the block ends. */
fun <T> withDevice(
    folder: Path,
    files: Files,
    memoryBytes: Long = 1_000_000_000,
    work: (DeviceService) -> T,
): T =
    Store(folder, files).use { store ->
        val installer = Installer(store, Agreeable, memoryBytes, SignedBundle.key) { Long.MAX_VALUE }
        val facts = Facts("a".repeat(64), "test", "1", Agreeable.name, memoryBytes)
        DeviceService(facts, installer.restore(), installer).use(work)
    }

/** Send parts to a device, and return all that it answered. */
fun DeviceService.take(parts: List<InstallRequest>): List<InstallReply> {
    val rest = parts.iterator()
    val replies = ArrayList<InstallReply>()
    install(Parts { if (rest.hasNext()) rest.next() else null }, replies::add)
    return replies
}
