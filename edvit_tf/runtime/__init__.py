"""The interpreter: load a flatbuffer, run it, measure it, hold it against its test vector."""
