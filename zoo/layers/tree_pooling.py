"""Tree pooling: learned pooling filters, fused by a binary tree of gates."""

import keras
from keras import ops

from zoo.layers.generalized_pooling import GeneralizedPooling2D


@keras.saving.register_keras_serializable(package="kerascnn")
class TreePooling2D(GeneralizedPooling2D):
    """Pool each window x with filters at the leaves of a tree, mixed by its gates.

    A leaf is vᵀx with a learned filter v. An inner node is g·left + (1 - g)·right with
    g = σ(ωᵀx), σ the logistic function and ω a learned mask. A tree of 2 levels has 2
    leaves and 1 gate, one of 3 levels 4 leaves and 3 gates: 3k² and 7k² weights for the
    layer, or for each channel; there are no biases. All start from N(0, 0.1).

    Lee, Gallagher, Tu, arXiv 1509.08985, section 3.2, "tree pooling".

    Args:
        levels: levels of the tree, 2 or more; the leaves are the last of them.
        pool_size: height and width k of a window.
        strides: pixels from one window to the next; None for `pool_size`.
        padding: "same" (cells beyond the border count as 0) or "valid".
        per_channel: one tree for each channel; default one for the layer.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, channels). Output: tensor (N, rows, columns,
    channels), one value for each window.

    Raises:
        ValueError: fewer than 2 levels, a size that is not a positive integer, or
            another padding.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(self, levels=2, **kwargs):
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(
                f"levels must be an integer of 2 or more, for one level has nothing to "
                f"gate; received {levels!r}"
            )
        super().__init__(**kwargs)
        self.levels = levels

    @property
    def leaves(self):
        """Number of pooling filters; there is one gate less."""
        return 2 ** (self.levels - 1)

    def build(self, input_shape):
        """Add the filters and the gates, of shape (k, k, [channels,] number).

        The gates stand level by level, from the one above the leaves up to the root.
        """
        super().build(input_shape)
        self.filters = self.add_masks("filters", self.leaves)
        self.gates = self.add_masks("gates", self.leaves - 1)

    def call(self, inputs):
        """Pool `inputs` (N, height, width, channels)."""
        masks = ops.concatenate(
            [ops.convert_to_tensor(w) for w in (self.filters, self.gates)], axis=-1
        )
        responses = self.products(inputs, masks)
        nodes, gates = responses[: self.leaves], iter(responses[self.leaves :])
        while len(nodes) > 1:
            pairs = zip(nodes[::2], nodes[1::2], strict=True)
            nodes = [self._fuse(left, right, next(gates)) for left, right in pairs]
        return nodes[0]

    @staticmethod
    def _fuse(left, right, response):
        g = ops.sigmoid(response)
        return g * left + (1 - g) * right

    def macs(self, input_shape, output_shape):
        """Multiply-accumulates of all filters and gates over one image."""
        return self._masks_macs(output_shape, 2 * self.leaves - 1)

    def parameter_expression(self):
        """Say where the number of weights comes from: "3·3·(2 + 1)"."""
        return f"{self._mask_expression()}·({self.leaves} + {self.leaves - 1})"

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "levels": self.levels}
