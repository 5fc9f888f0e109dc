"""Custom Keras layers of the zoo, usable in any Keras model."""

from zoo.layers.local_response_normalization import LocalResponseNormalization

__all__ = ["LocalResponseNormalization"]
