"""A phone on a cable or in the same network, by Android's own tool adb: the app, measurements, logs.

Nothing of a fleet goes this way: a phone that is a device takes its sub-models as every device does, signed
and over mutual TLS.
"""
