package org.edvit.agent.bundle

import java.math.BigDecimal
import java.math.BigInteger

/** The first place where a document is not what its schema says. `rule` is the keyword of JSON Schema. */
class Violation(
    val path: String,
    val rule: String,
    val value: Any?,
)

/**
 * What of JSON Schema (draft 7) the manifest's schema uses; a keyword that is not known here is an error of the schema.
 *
 * Documents are as [StrictJson] gives them. A whole number may be written with a point, as JSON Schema has it.
 */
class Schema(
    private val root: Map<String, Any?>,
) {
    private val patterns = HashMap<String, Regex>()

    /** The first violation, or null. */
    fun violation(document: Any?): Violation? = check(root, document, "")

    private fun check(
        schema: Map<String, Any?>,
        value: Any?,
        path: String,
    ): Violation? {
        for ((rule, wanted) in schema) {
            val found =
                when (rule) {
                    "\$ref" -> check(referred(wanted as String), value, path)
                    "properties", "additionalProperties" -> inMembers(schema, rule, value, path)
                    "items" -> inElements(wanted, value, path)
                    else -> if (holds(rule, wanted, value)) null else Violation(path, rule, value)
                }
            if (found != null) return found
        }
        return null
    }

    private fun inMembers(
        schema: Map<String, Any?>,
        rule: String,
        value: Any?,
        path: String,
    ): Violation? {
        if (value !is Map<*, *>) return null
        val named = members(schema["properties"] ?: emptyMap<String, Any?>())
        return value.entries.firstNotNullOfOrNull { (key, member) ->
            val wanted = if (rule == "properties") named[key] else schema[rule].takeIf { key !in named }
            wanted?.let { check(members(it), member, if (path.isEmpty()) "$key" else "$path.$key") }
        }
    }

    private fun inElements(
        wanted: Any?,
        value: Any?,
        path: String,
    ): Violation? {
        if (value !is List<*>) return null
        return value.withIndex().firstNotNullOfOrNull { (index, element) ->
            check(members(wanted), element, "$path[$index]")
        }
    }

    @Suppress("CyclomaticComplexMethod") // a table
    private fun holds(
        rule: String,
        wanted: Any?,
        value: Any?,
    ): Boolean =
        when (rule) {
            "\$schema", "title", "description", "definitions" -> true
            "type" -> if (wanted is List<*>) wanted.any { isOf(it, value) } else isOf(wanted, value)
            "const" -> same(wanted, value)
            "enum" -> (wanted as List<*>).any { same(it, value) }
            "pattern" -> value !is String || pattern(wanted as String).containsMatchIn(value)
            "minLength" -> value !is String || characters(value) >= size(wanted)
            "maxLength" -> value !is String || characters(value) <= size(wanted)
            "minimum" -> value !is Number || decimal(value) >= decimal(wanted)
            "maximum" -> value !is Number || decimal(value) <= decimal(wanted)
            "exclusiveMinimum" -> value !is Number || decimal(value) > decimal(wanted)
            "multipleOf" -> value !is Number || decimal(value).remainder(decimal(wanted)).signum() == 0
            "minItems" -> value !is List<*> || value.size >= size(wanted)
            "maxItems" -> value !is List<*> || value.size <= size(wanted)
            "uniqueItems" -> value !is List<*> || value.map(::comparable).toSet().size == value.size
            "required" -> value !is Map<*, *> || value.keys.containsAll(wanted as List<*>)
            "minProperties" -> value !is Map<*, *> || value.size >= size(wanted)
            "maxProperties" -> value !is Map<*, *> || value.size <= size(wanted)
            else -> throw IllegalArgumentException("the schema has a keyword that is not known here: $rule")
        }

    private fun isOf(
        type: Any?,
        value: Any?,
    ): Boolean =
        when (type) {
            "object" -> value is Map<*, *>
            "array" -> value is List<*>
            "string" -> value is String
            "number" -> value is Number
            "integer" -> value is BigInteger || (value is Double && value % 1.0 == 0.0)
            "null" -> value == null
            "boolean" -> value is Boolean
            else -> throw IllegalArgumentException("the schema has a type that is not known here: $type")
        }

    @Suppress("UNCHECKED_CAST")
    private fun members(value: Any?): Map<String, Any?> = value as Map<String, Any?>

    private fun referred(reference: String): Map<String, Any?> =
        reference.removePrefix("#/").split("/").fold(root) { inside, name -> members(inside[name]) }

    // Java's `$` also matches before a last line break, which would let a name with one pass.
    private fun pattern(text: String): Regex = patterns.getOrPut(text) { Regex(if (text.endsWith("$")) text.dropLast(1) + "\\z" else text) }

    private fun characters(text: String): Int = text.codePointCount(0, text.length)

    private fun size(wanted: Any?): Int = (wanted as BigInteger).toInt()

    private fun same(
        one: Any?,
        other: Any?,
    ): Boolean = comparable(one) == comparable(other)

    private fun comparable(value: Any?): Any? = if (value is Number) decimal(value).stripTrailingZeros() else value

    private fun decimal(value: Any?): BigDecimal = if (value is BigInteger) BigDecimal(value) else BigDecimal.valueOf(value as Double)
}
