package org.edvit.agent.bundle

import org.edvit.agent.EdvitError
import org.edvit.agent.Vectors
import org.edvit.agent.hex
import org.edvit.agent.sha256
import org.edvit.agent.trust.Pairing
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

class VectorsTest {
    @TestFactory
    fun `each manifest is refused with its code`(): List<DynamicTest> =
        Vectors.json("manifests/index.json").map { (name, code) ->
            DynamicTest.dynamicTest("$name") {
                val data = Vectors.bytes("manifests/$name")
                if (code == null) {
                    ManifestReader.parse(data)
                } else {
                    val error = assertThrows(EdvitError::class.java) { ManifestReader.parse(data) }
                    assertEquals(code, error.code)
                    assertTrue(error.message.endsWith("."), error.message)
                }
            }
        }

    @Test
    fun `the golden bundle is what its manifest says`() {
        val manifest = ManifestReader.parse(Vectors.bytes("bundle/manifest.json"))
        assertEquals(2, manifest.submodels.size)
        for (entry in manifest.everyFile()) {
            val data = Vectors.bytes("bundle/${entry.file}")
            assertEquals(entry.bytes, data.size.toLong(), entry.file)
            assertEquals(entry.sha256, hex(sha256(data)), entry.file)
        }
        for (variant in manifest.submodels.flatMap { it.variants }) {
            val vector = TestVector.read(Vectors.bytes("bundle/${variant.testVector}"))
            assertEquals(manifest.input.bytes, vector.image.size)
            assertEquals(variant.width("feature"), vector.feature.size.toLong())
            assertEquals(variant.width("logits"), vector.logits.size.toLong())
        }
    }

    @Test
    fun `signatures are read as Python wrote them`() {
        val vectors = Vectors.json("signature.json")
        val key = BundleKey(Vectors.hex(vectors["public_key"]))
        assertEquals(vectors["key_id"], key.id)
        val manifest = Vectors.bytes("${vectors["manifest_file"]}")
        val signature = Vectors.hex(vectors["signature"])
        Signature.verify(key, manifest, signature)
        assertEquals(7, Signature.readRollback(key, Vectors.hex(vectors["rollback"])).newest)
        for (place in listOf(0, manifest.size / 2, manifest.size - 1)) {
            val changed = manifest.clone().also { it[place] = (it[place] + 1).toByte() }
            val error = assertThrows(EdvitError::class.java) { Signature.verify(key, changed, signature) }
            assertEquals("trust.signature", error.code)
        }
    }

    @Test
    fun `pairing transcripts are what Python computes`() {
        val vectors = Vectors.json("pairing.json")
        val code = vectors["code"] as Map<*, *>
        for (typed in code["typed"] as List<*>) assertEquals(code["secret"], hex(Pairing.readCode("$typed")))
        val expected = vectors["token"] as Map<*, *>
        val token = Pairing.readToken("${expected["word"]}")
        assertEquals(
            listOf(expected["id"], expected["secret"], expected["fingerprint"]),
            listOf(token.id, hex(token.secret), hex(token.fingerprint)),
        )
        val transcripts = vectors["transcripts"] as List<*>
        assertEquals(2, transcripts.size)
        for (case in transcripts.map { it as Map<*, *> }) {
            val key = Pairing.stretch(Vectors.hex(case["secret"]), "${vectors["device_id"]}")
            assertEquals(case["key"], hex(key))
            val (offer, challenge) = listOf(Vectors.hex(case["offer"]), Vectors.hex(case["challenge"]))
            assertEquals(case["aggregator_proof"], hex(Pairing.proof(key, "aggregator", offer, challenge)))
            assertEquals(case["device_proof"], hex(Pairing.proof(key, "device", offer, challenge)))
        }
    }
}
