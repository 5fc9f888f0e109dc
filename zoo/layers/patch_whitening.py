"""Patch whitening: a frozen convolution whose outputs are uncorrelated."""

import math

import keras
import numpy as np
from keras import ops

# Images whose patches are held in memory at a time: 32x32x3 images have 92 kB of
# patches each, in double precision.
CHUNK = 500


@keras.saving.register_keras_serializable(package="kerascnn")
class PatchWhitening2D(keras.layers.Layer):
    """Convolve with the eigenvectors of the covariance of image patches.

    Neighbouring pixels and channels are much alike. With v_i, λ_i the eigenvectors and
    eigenvalues of the covariance of the size x size patches, filter i is
    v_i / √(λ_i + ε), and filter i + d, of d = size·size·C, is its negative, so that an
    activation such as ReLU loses neither sign. Over the patches, the first d outputs
    have mean 0, and covariance 1 on the diagonal (but for ε) and 0 elsewhere.

    The kernel is no trainable weight. It is set by `adapt`, from training images; until
    then its filters are an orthonormal basis drawn at random, and its negatives. The
    bias is trainable; `adapt` sets it to minus the response to the mean patch (0 for
    centred images), which makes the layer indifferent to the mean of its input.

    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv 2404.00498,
    section 3.2, after Page, "How to Train Your ResNet 8: Bag of Tricks", 2019.

    Args:
        size: height and width of a patch.
        epsilon: ε, a variance in units of the input. It bounds how much the rarest
            patterns, which are noise for the most part, are amplified.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, C), channels last. Output: tensor
    (N, height - size + 1, width - size + 1, 2·size·size·C), a "valid" convolution.

    Raises:
        ValueError: `size` is not a positive integer, ε is not above 0, or the images
            are smaller than a patch.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(self, size=2, epsilon=5e-4, **kwargs):
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a positive integer; received {size!r}")
        if not epsilon > 0:
            raise ValueError(
                "epsilon must be above 0, or a pattern that never occurs divides by "
                f"zero; received {epsilon!r}"
            )
        super().__init__(**kwargs)
        self.size = size
        self.epsilon = epsilon

    def build(self, input_shape):
        """Make the kernel (size, size, C, 2·size·size·C) and the bias."""
        self.compute_output_shape(input_shape)  # says what is wrong with a shape
        channels = input_shape[-1]
        filters = self._filters(channels)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.size, self.size, channels, filters),
            initializer=_orthonormal,
            trainable=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(filters,), initializer="zeros", trainable=True
        )

    @property
    def adapted(self) -> bool:
        """Whether `adapt` has set the kernel, in this process or before a save.

        It is read off the kernel, whose filters have norm 1 until then, so that no file
        of weights has to carry it. White noise of variance 1 leaves the norms at 1:
        there it stays False, and adapting again changes nothing.
        """
        if not self.built:
            return False
        kernel = ops.convert_to_numpy(self.kernel)
        norms = np.sqrt(np.square(kernel).sum(axis=(0, 1, 2)))
        return not np.allclose(norms, 1, atol=0.01)

    def adapt(self, images):
        """Set kernel and bias from the patches of images (N, height, width, C).

        They are what reaches this layer: of scaled pixels, where the network scales
        them. ValueError where they have another form, are smaller than a patch, or
        hold numbers that are not finite.
        """
        images = np.asarray(images)
        if images.ndim != 4 or not len(images):
            raise ValueError(
                "adapt needs images (N, height, width, channels), one or more; "
                f"received an array of shape {images.shape}"
            )
        if not self.built:
            self.build(images.shape)
        self.compute_output_shape(images.shape)
        channels = self.kernel.shape[2]
        if images.shape[-1] != channels:
            raise ValueError(
                f"this layer was built for {channels} channels; received images of "
                f"{images.shape[-1]}"
            )
        mean, covariance = self._moments(images)
        if not np.isfinite(covariance).all():
            raise ValueError(
                "adapt needs finite numbers; received images with NaN or infinity"
            )
        eigenvalues, eigenvectors = np.linalg.eigh(covariance)
        eigenvalues = eigenvalues[::-1].clip(0)  # the largest first
        eigenvectors = eigenvectors[:, ::-1]
        # An eigenvector may as well point the other way: the same one on any machine.
        largest = np.abs(eigenvectors).argmax(axis=0)
        eigenvectors = eigenvectors * np.sign(
            eigenvectors[largest, np.arange(len(largest))]
        )
        basis = eigenvectors / np.sqrt(eigenvalues + self.epsilon)
        kernel = np.concatenate([basis, -basis], axis=1)
        self.kernel.assign(kernel.reshape(self.kernel.shape).astype("float32"))
        self.bias.assign((-mean @ kernel).astype("float32"))

    def _moments(self, images):
        """Return mean and covariance of the patches, flat in the kernel's order."""
        window, size = (self.size, self.size), self.kernel.shape[-1] // 2
        count, total, squares = 0, np.zeros(size), np.zeros((size, size))
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK].astype("float64")
            patches = np.lib.stride_tricks.sliding_window_view(chunk, window, (1, 2))
            # (N, H', W', C, size, size), and the kernel is (size, size, C, filters)
            patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size)
            count += len(patches)
            total += patches.sum(axis=0)
            squares += patches.T @ patches
        mean = total / count
        return mean, squares / count - np.outer(mean, mean)

    def call(self, inputs):
        """Whiten the patches of `inputs` (N, height, width, C)."""
        outputs = ops.conv(
            inputs, self.kernel, padding="valid", data_format="channels_last"
        )
        # The sum would be TensorFlow's BiasAdd, whose gradient is summed in bfloat16
        # where no gradient of a kernel is computed along with it: of a million
        # positions nothing but rounding is left.
        return ops.subtract(outputs, ops.negative(self.bias))

    def compute_output_shape(self, input_shape):
        """Return the shape of the patches' responses."""
        batch, height, width, channels = input_shape
        for side in (height, width):
            if side is not None and side < self.size:
                raise ValueError(
                    f"images must be at least {self.size}x{self.size} pixels, a patch; "
                    f"received the shape {tuple(input_shape)}"
                )
        sides = (s and s - self.size + 1 for s in (height, width))
        return (batch, *sides, self._filters(channels))

    def _filters(self, channels):
        return 2 * self.size * self.size * channels

    def window(self):
        """Say for the receptive field what the convolution sees."""
        return (self.size, self.size), (1, 1)

    def macs(self, input_shape, output_shape):
        """Count the multiply-accumulates of the convolution, for one image."""
        return math.prod(output_shape[1:3]) * math.prod(self.kernel.shape)

    def parameter_expression(self):
        """Write out the number of parameters: a frozen kernel, a trainable bias."""
        filters = self.kernel.shape[-1]
        return "·".join(map(str, self.kernel.shape)) + f" + {filters}"

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "size": self.size, "epsilon": self.epsilon}


def _orthonormal(shape, dtype=None):
    """Draw an orthonormal basis of patches, and its negatives."""
    half = (*shape[:-1], shape[-1] // 2)
    basis = keras.initializers.Orthogonal()(half, dtype)
    return ops.concatenate([basis, -basis], axis=-1)
