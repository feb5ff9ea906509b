"""What a Vision Transformer is, what it costs, and the Keras model that says so."""
