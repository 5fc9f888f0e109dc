"""Lookahead: weights that are pulled back, every few steps, to their slow average.

`TrainedModel`, which is trained in the place of a network, does it after its steps.
"""

import keras

from kerascnn.training import checkpoint


class Lookahead:
    """The slow average of a model's weights, and the blending of both.

    After every `every` steps of the optimizer, with t of all T steps done,

        slow += (1 - decay) · (weights - slow),  weights = slow,
        decay = 0.95^every · (t / T)^3,

    so that the weights move freely at first and are averaged strongly at the end; the
    slow weights are the result (Jordan 2024, arXiv 2404.00498, section 3.4, after
    Zhang et al. 2019, arXiv 1907.08610). The moving statistics of batch normalisation
    are averaged with the weights that they belong to, as in the paper's code.

    The slow weights are variables of the optimizer: they are saved and restored with
    its state. Make it when the optimizer is built and the weights are initialised.

    Args:
        model: a compiled model.
        every: steps of the optimizer between two blendings.
        total: T, the steps of the whole training.
    """

    def __init__(self, model, every: int, total: int):
        self.optimizer = model.optimizer
        self.every = every
        self.total = total
        self.weights = [v for v in model.weights if v.dtype.startswith("float")]
        self.slow = [
            self.optimizer.add_variable_from_reference(v, "slow") for v in self.weights
        ]
        checkpoint.copy(self.weights, self.slow)

    def blend(self) -> None:
        """Blend, where a multiple of `every` steps is done; else change nothing.

        Plain operations on tensors, without a branch, so that it can be part of a
        compiled training step of any backend.
        """
        step = self.optimizer.iterations
        due = keras.ops.equal(keras.ops.mod(step, self.every), 0)
        share = keras.ops.cast(step, "float32") / self.total
        fresh = 1 - 0.95**self.every * keras.ops.power(share, 3)
        for slow, weight in zip(self.slow, self.weights, strict=True):
            # Values first: the variables are about to be assigned.
            behind, ahead = map(keras.ops.convert_to_tensor, (slow, weight))
            blended = behind + fresh * (ahead - behind)
            kept = keras.ops.where(due, blended, behind)
            used = keras.ops.where(due, blended, ahead)
            slow.assign(kept)
            weight.assign(used)

    def take_slow(self) -> None:
        """Put the slow weights in place of the weights."""
        checkpoint.copy(self.slow, self.weights)


class TrainedModel(keras.Model):
    """A functional model with a training step of its own.

    It may begin with cutting off what a batch was filled up with, and end with a
    blending.

    Attributes:
        lookahead: the `Lookahead`, to be set after `compile` and before `fit`; None
            for no blending.
        sizes: the number of images in a batch, by the size that it was filled up to;
            empty where batches are as they are. See `kerascnn.training.strategy`.
    """

    lookahead: Lookahead | None = None
    sizes: dict[int, int] = {}  # noqa: RUF012  (read only; Keras would track an own)

    def train_step(self, *arguments):
        """Run one step: (data), with JAX (state, data), as Keras calls it."""
        *before, data = arguments
        size = keras.tree.flatten(data)[0].shape[0]
        if self.sizes.get(size, size) != size:
            number = self.sizes[size]
            data = keras.tree.map_structure(lambda part: part[:number], data)
            arguments = (*before, data)
        result = super().train_step(*arguments)
        if self.lookahead is None:
            return result
        if keras.backend.backend() != "jax":
            self.lookahead.blend()
            return result
        # In a JAX step the variables are values that are passed in and out.
        logs, state = result
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        pairs = [
            pair
            for variables, values in zip(groups, state, strict=True)
            for pair in zip(variables, values, strict=True)
        ]
        with keras.StatelessScope(state_mapping=pairs) as scope:
            self.lookahead.blend()
        state = tuple([scope.get_current_value(v) for v in group] for group in groups)
        return logs, state
