"""The contract: a folder of flatbuffers and the manifest that describes it."""
