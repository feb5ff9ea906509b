"""What a device runs: advertise, store, engine, serve."""
