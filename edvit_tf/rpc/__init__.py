"""The protocol between aggregator and devices, and the links that speak it."""
