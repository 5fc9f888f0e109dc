"""Custom Keras layers of the zoo, usable in any Keras model."""
