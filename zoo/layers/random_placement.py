"""Random placement: a small image near the middle of a larger field of zeros."""

import keras
from keras import ops

from zoo.layers.pick import pick


@keras.saving.register_keras_serializable(package="kerascnn")
class RandomPlacement2D(keras.layers.Layer):
    """Put images in the middle of a field of zeros; in training, near the middle.

    When training, each image is moved by a random whole number of pixels along either
    axis, from -shift to shift, all alike probable, or as far as the field has room.
    When predicting, it lies in the middle (where the margin is odd, the larger half of
    it is below and to the right). Nothing of an image is lost, unlike by a translation
    within its own borders.

    Graham, "Spatially-sparse convolutional neural networks", arXiv 1409.6070; the
    shift of 16 is that of the author's programs. It has no weights.

    Args:
        height: of the field.
        width: of the field.
        shift: how many pixels an image is moved at most.
        seed: integer seed of the layer's own generator; default: from Keras' seed.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, image height, image width, channels), channels last.
    Output: tensor (N, height, width, channels).

    Raises:
        ValueError: `height` or `width` is not a positive integer, `shift` is not an
            integer of 0 or more, or an image is larger than the field.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(self, height, width, shift=16, seed=None, **kwargs):
        for name, value, least in (
            ("height", height, 1),
            ("width", width, 1),
            ("shift", shift, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name} must be an integer of {least} or more; received {value!r}"
                )
        super().__init__(**kwargs)
        self.height = height
        self.width = width
        self.shift = shift
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        """Check that an image of `input_shape` fits into the field."""
        self.compute_output_shape(input_shape)

    def call(self, inputs, training=False):
        """Place `inputs` (N, image height, image width, channels)."""
        sizes = tuple(zip(inputs.shape[1:3], (self.height, self.width), strict=True))
        if not (training and self.shift):
            margins = [_margins(size, field) for size, field in sizes]
            return ops.pad(inputs, [(0, 0), *margins, (0, 0)])
        images = ops.shape(inputs)[0]
        rows, columns = (self._places(images, *axis) for axis in sizes)
        # A row and a column of zeros, for the places outside of the image.
        return pick(ops.pad(inputs, [(0, 0), (0, 1), (0, 1), (0, 0)]), rows, columns)

    def _places(self, images, size, field):
        """Say which row of the image is in each row of the field, (images, field)."""
        before, after = _margins(size, field)
        moves = keras.random.randint(
            (images, 1),
            -min(self.shift, before),
            min(self.shift, after) + 1,
            seed=self.seed_generator,
        )
        places = ops.arange(field, dtype="int32")[None, :] - (before + moves)
        inside = ops.logical_and(places >= 0, places < size)
        return ops.where(inside, places, size)

    def compute_output_shape(self, input_shape):
        """Return (N, height, width, channels)."""
        batch, height, width, channels = input_shape
        if height is None or width is None:
            raise ValueError(
                "RandomPlacement2D needs a known height and width; received "
                f"input_shape={input_shape}"
            )
        if height > self.height or width > self.width:
            raise ValueError(
                f"an image of {height}x{width} pixels does not fit into a field of "
                f"{self.height}x{self.width}; received input_shape={input_shape}"
            )
        return (batch, self.height, self.width, channels)

    def window(self):
        """Say for the receptive field that each pixel sees itself alone."""
        return (1, 1), (1, 1)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "shift": self.shift,
            "seed": self.seed,
        }


def _margins(size, field):
    before = (field - size) // 2
    return before, field - size - before
