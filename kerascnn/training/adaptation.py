"""Layers that learn from images without labels, before the training."""

import keras
import numpy as np

# What the patch whitening of airbench is computed from (arXiv 2404.00498, section 3.2).
IMAGES = 5_000


def adapt_layers(model, images: np.ndarray) -> list[str]:
    """Adapt the layers of a new model that have the Keras method `adapt`.

    In the order of the model, each on the features that reach it, so that a layer sees
    what the adapted layers before it make. A layer without variables was given its
    values by the builder (`keras.layers.Normalization(mean=…, variance=…)`) and is
    left alone.

    Args:
        model: a functional model.
        images: uint8 (N, height, width, channels), training images; the first 5,000
            are used.

    Returns:
        The names of the adapted layers.

    Raises:
        ValueError: such a layer is inside a nested model.
    """
    found = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if hasattr(layer, "adapt") and layer.variables
    ]
    for layer in found:
        if not any(layer is own for own in model.layers):
            raise ValueError(
                f"{layer.name} has to be adapted and is inside a nested model of "
                f"{model.name}: build {model.name} from layers, not from models"
            )
        layer.adapt(_features(model, layer, images[:IMAGES]))
    return [layer.name for layer in found]


def _features(model, layer, images):
    """Return what reaches a layer: float32 (N, …)."""
    if any(layer.input is tensor for tensor in model.inputs):
        return images.astype(np.float32)
    before = keras.Model(model.inputs[0], layer.input)
    return np.asarray(before.predict(images, batch_size=250, verbose=0), np.float32)


def finalize_layers(model) -> None:
    """Let adapted layers take up values that were assigned to their variables.

    `keras.layers.Normalization` computes with constants that it makes of its variables
    in `finalize_state`; Keras calls it when it reads a file.
    """
    for layer in model._flatten_layers():
        finalize = getattr(layer, "finalize_state", None)
        if finalize:
            finalize()
