"""Keras to TFLite, format by format, and the checks that a flatbuffer must pass."""
