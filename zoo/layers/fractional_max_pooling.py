"""Fractional max pooling: pooling that shrinks by less than two, at random places."""

import functools
import math
from fractions import Fraction

import keras
from keras import ops

from zoo.layers.compiling import compiled_by_xla
from zoo.layers.pick import pick

MODES = ("pseudorandom", "random")
REGIONS = ("overlapping", "inclusive", "disjoint")
LAST = "channels_last"


@keras.saving.register_keras_serializable(package="kerascnn")
class FractionalMaxPooling2D(keras.layers.Layer):
    """Take the maximum over regions whose steps are 1 or 2, in a random order.

    Graham, "Fractional Max-Pooling", arXiv 1412.6071, section 2. Along each axis the
    marks m_0 = 0 < m_1 < … rise by 1 or 2; α is the mean step, between 1 and 2.

    pseudorandom: m_i = ⌊α(i + u)⌋ - ⌊αu⌋ with one u from [0, 1) an axis: the ones and
    twos alternate as evenly as they can. With integers, α = p/q, that is
    m_i = ⌊(ip + t)/q⌋, t = ⌊up⌋ mod q, which no rounding can spoil.
    random: the right numbers of ones and twos in a random order.

    The regions of output i, for N_in rows and N_out of them left:

    overlapping: rows m_i and m_i + 1, always 2, with α = (N_in - 2)/(N_out - 1). This
        is what the author's program does, and the default.
    inclusive: rows m_i to m_{i+1}, 2 or 3, with α = (N_in - 1)/N_out: the paper's
        overlapping regions.
    disjoint: rows m_i to m_{i+1} - 1, 1 or 2, with α = N_in/N_out.

    Rows and columns are drawn on their own, anew for every image and in every pass,
    when predicting too, as published: the mean over several passes is more accurate
    than one. All channels of an image share the regions. With N_in = 2·N_out, where
    nothing is left to chance, it is ordinary 2x2 pooling (but for inclusive regions).
    It has no weights.

    Args:
        output_size: height and width of the output, an integer or a pair. Each must
            lie between half of the input and one less than it.
        ratio: by how much to shrink in place of `output_size`, a number above 1 and
            up to 2, or a pair; the output is N_in/ratio, rounded to the nearest.
        mode: "pseudorandom" or "random".
        regions: "overlapping", "inclusive" or "disjoint".
        shared: draw once for all images of a batch: faster, and less random.
        deterministic: draw nothing; always the pseudorandom regions of u = 0.5.
        seed: integer seed of the layer's own generator; default: from Keras' seed.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, channels), channels last, height and width known.
    Output: tensor (N, output height, output width, channels).

    Raises:
        ValueError: neither or both of `output_size` and `ratio` are given, an argument
            is out of its range, or the input cannot be pooled to the output size.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(
        self,
        output_size=None,
        ratio=None,
        mode="pseudorandom",
        regions="overlapping",
        shared=False,
        deterministic=False,
        seed=None,
        **kwargs,
    ):
        if (output_size is None) == (ratio is None):
            raise ValueError(
                "give either output_size or ratio; received "
                f"output_size={output_size!r}, ratio={ratio!r}"
            )
        for name, value, known in (
            ("mode", mode, MODES),
            ("regions", regions, REGIONS),
        ):
            if value not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}; received {value!r}"
                )
        super().__init__(**kwargs)
        self.output_size = _pair("output_size", output_size, _is_size, "above 0")
        self.ratio = _pair("ratio", ratio, _is_ratio, "above 1 and up to 2")
        self.mode = mode
        self.regions = regions
        self.shared = shared
        self.deterministic = deterministic
        self.seed = seed
        # Also where it is not used, so that a deterministic twin has the same state.
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        """Fix how far the regions step, from the height and width of the input."""
        output_shape = self.compute_output_shape(input_shape)
        self._walks = tuple(
            _walk(size_in, size_out, self.regions)
            for size_in, size_out in zip(
                input_shape[1:3], output_shape[1:3], strict=True
            )
        )

    def call(self, inputs):
        """Pool `inputs` (N, height, width, channels) over regions drawn for it."""
        rows, columns = self.draw(ops.shape(inputs)[0])
        return pool(inputs, rows, columns, self.regions)

    def draw(self, images):
        """Draw the regions for a number of images, as `call` does, once it is built.

        Returns ((first, last), (first, last)), the pixels of every region along the
        rows and the columns, each an int32 tensor (images, regions), or (1, regions)
        where all images share them.
        """
        draws = 1 if self.shared or self.deterministic else images
        marks = (self._marks(draws, *walk) for walk in self._walks)
        if self.regions == "overlapping":
            return tuple((m, m + 1) for m in marks)
        beyond = int(self.regions == "disjoint")
        return tuple((m[:, :-1], m[:, 1:] - beyond) for m in marks)

    def _marks(self, draws, steps, total):
        if self.deterministic:
            return pseudorandom(ops.full((1, 1), 0.5), steps, total)
        # In float32 under mixed precision too: bfloat16 has 8 bits, and makes ties.
        options = {"dtype": "float32", "seed": self.seed_generator}
        if self.mode == "pseudorandom":
            return pseudorandom(
                keras.random.uniform((draws, 1), **options), steps, total
            )
        return shuffled(keras.random.uniform((draws, steps), **options), steps, total)

    def compute_output_shape(self, input_shape):
        """Return (N, output height, output width, channels)."""
        batch, height, width, channels = input_shape
        if height is None or width is None:
            raise ValueError(
                "FractionalMaxPooling2D needs a known height and width, from which the "
                f"steps of its regions follow; received input_shape={input_shape}"
            )
        sizes = self.output_size or tuple(
            _nearest(size, ratio, self.regions)
            for size, ratio in zip((height, width), self.ratio, strict=True)
        )
        for size_in, size_out in zip((height, width), sizes, strict=True):
            _walk(size_in, size_out, self.regions)
        return (batch, *sizes, channels)

    def window(self):
        """Say for the receptive field: the largest region, and the mean step."""
        size = 3 if self.regions == "inclusive" else 2
        # A single region has no step: any will do.
        steps = [Fraction(total, steps) if steps else 1 for steps, total in self._walks]
        return (size, size), tuple(steps)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "ratio": self.ratio,
            "mode": self.mode,
            "regions": self.regions,
            "shared": self.shared,
            "deterministic": self.deterministic,
            "seed": self.seed,
        }


def pseudorandom(u, steps, total):
    """Return marks of even steps: m_i = ⌊α(i + u)⌋ - ⌊αu⌋, α = total/steps.

    `u` (N, 1) is in [0, 1); the marks are int32 (N, steps + 1), from 0 to `total`.
    """
    if steps == 0:
        return ops.zeros_like(u, dtype="int32")
    # ⌊ip/q + v⌋, v the fraction of αu, changes only where vq passes an integer.
    start = ops.mod(ops.cast(ops.floor(u * total), "int32"), steps)
    return ops.floor_divide(
        ops.arange(steps + 1, dtype="int32")[None, :] * total + start, steps
    )


def shuffled(noise, steps, total):
    """Return marks with the right numbers of ones and twos, in a random order.

    The order of `noise` (N, steps) decides; `total` - `steps` of the steps are twos.
    The marks are int32 (N, steps + 1), from 0 to `total`.
    """
    begin = ops.zeros((ops.shape(noise)[0], 1), dtype="int32")
    if steps == 0:
        return begin
    # The order of noise is a random permutation of 0 … steps - 1.
    twos = ops.cast(ops.argsort(noise, axis=1), "int32") < total - steps
    return ops.concatenate([begin, ops.cumsum(1 + ops.cast(twos, "int32"), 1)], axis=1)


def pool(x, rows, columns, regions):
    """Take the maximum over given regions of (N, height, width, channels).

    `rows` are the first and last row of every region, int32 (N, P) or (1, P) each,
    `columns` likewise (N, Q); the maxima are (N, P, Q, channels).
    """
    if regions == "disjoint":
        ends = (rows, columns)
    else:
        # The maxima of all 2x2 windows, of which any larger region is a union.
        x = _windows(x)
        if regions == "overlapping":
            ends = tuple((first,) for first, _ in (rows, columns))
        else:
            ends = tuple((first, last - 1) for first, last in (rows, columns))
    return functools.reduce(
        ops.maximum, [pick(x, row, column) for row in ends[0] for column in ends[1]]
    )


def _windows(x):
    """Return the maxima of all 2x2 windows of (N, height, width, channels).

    There are two ways, each of which costs as much as a convolution, forward and back,
    where the other is a fraction of one (measured on a CPU, 57x57x96).
    """
    if not compiled_by_xla():
        return ops.max_pool(x, 2, strides=1, padding="valid", data_format=LAST)
    # XLA fuses slices, and takes long for the gradient of the operation above.
    x = ops.maximum(x[:, :-1], x[:, 1:])
    return ops.maximum(x[:, :, :-1], x[:, :, 1:])


def _range(size_in, regions):
    """Return the least and the largest output that steps of 1 and 2 can reach."""
    if regions == "overlapping":
        return -(-size_in // 2), size_in - 1
    if regions == "inclusive":
        return -(-(size_in - 1) // 2), size_in - 1
    return -(-size_in // 2), size_in


def _walk(size_in, size_out, regions):
    """Return the number of steps along an axis, and where the last one ends."""
    least, most = _range(size_in, regions)
    if most < max(least, 1):
        raise ValueError(
            f"{regions} regions need at least 2 pixels along each axis; received "
            f"{size_in}"
        )
    if not least <= size_out <= most:
        raise ValueError(
            f"{regions} regions with steps of 1 and 2 pool {size_in} pixels to "
            f"{least} … {most}; received an output size of {size_out}"
        )
    if regions == "overlapping":
        return size_out - 1, size_in - 2
    return size_out, size_in - (regions == "inclusive")


def _nearest(size_in, ratio, regions):
    least, most = _range(size_in, regions)
    return min(max(math.floor(size_in / ratio + 0.5), least), most)


def _pair(name, value, valid, what):
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(map(valid, pair)):
        raise ValueError(
            f"{name} must be a number {what}, or a pair of them; received {value!r}"
        )
    return pair


def _is_size(value):
    return isinstance(value, int) and value > 0


def _is_ratio(value):
    return isinstance(value, (int, float)) and 1 < value <= 2
