"""Which sub-model goes to which device: pure functions of numbers."""
