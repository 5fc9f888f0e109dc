"""From a recipe to a Keras optimizer, a schedule and an average of the weights."""

import itertools
import math

import keras

from kerascnn.training import checkpoint
from kerascnn.training.recipe import Recipe
from zoo.layers.compiling import compiled_by_xla

NORMALIZATION = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose constructor takes its attributes, as `get_config` gives them."""

    def get_config(self):
        """Return the arguments of the constructor."""
        return dict(vars(self))


@keras.saving.register_keras_serializable(package="kerascnn")
class Warmup(_Schedule):
    """Grow the rate linearly from 0 to the peak, then follow another schedule."""

    def __init__(self, after, peak, steps):
        super().__init__()
        if isinstance(after, dict):  # as Keras writes it
            after = keras.saving.deserialize_keras_object(after)
        self.after = after
        self.peak = peak
        self.steps = steps

    def __call__(self, step):
        """Return the learning rate at a step."""
        step = keras.ops.cast(step, "float32")
        # Counted from 1, so that the first step is not wasted on a rate of 0.
        growing = self.peak * (step + 1) / self.steps
        later = self.after(keras.ops.maximum(step - self.steps, 0))
        return keras.ops.where(step < self.steps, growing, later)


@keras.saving.register_keras_serializable(package="kerascnn")
class Points(_Schedule):
    """Straight lines between points; constant before the first and after the last."""

    def __init__(self, steps, rates):
        super().__init__()
        self.steps = list(steps)
        self.rates = list(rates)

    def __call__(self, step):
        """Return the learning rate at a step."""
        step = keras.ops.cast(step, "float32")
        points = list(zip(self.steps, self.rates, strict=True))
        rate = keras.ops.full_like(step, self.rates[-1])
        # From the last line to the first: an earlier one holds before its end.
        for (start, low), (end, high) in reversed(list(itertools.pairwise(points))):
            line = low + (high - low) * (step - start) / (end - start)
            rate = keras.ops.where(step < end, line, rate)
        return keras.ops.where(step < self.steps[0], self.rates[0], rate)


def learning_rate(recipe: Recipe, steps_per_epoch: int):
    """Return the learning rate of a recipe as a Keras schedule over steps."""
    schedules = keras.optimizers.schedules
    warmup = round(recipe.warmup * steps_per_epoch)
    steps = max(recipe.epochs * steps_per_epoch - warmup, 1)
    peak = float(recipe.learning_rate)  # Keras takes the dtype of a rate from it
    if recipe.schedule == "cosine":
        rate = schedules.CosineDecay(peak, steps, alpha=recipe.final_rate)
    elif recipe.schedule == "steps":
        # A milestone counts from the start of the training, warm-up included.
        # Keras keeps the old rate in the step of the boundary, which is counted from
        # 0: the last step before the milestone is the boundary.
        at = [round(m * steps_per_epoch) - warmup - 1 for m in recipe.milestones]
        factors = recipe.rates or [recipe.decay ** (n + 1) for n in range(len(at))]
        values = [peak, *(peak * factor for factor in factors)]
        rate = schedules.PiecewiseConstantDecay(at, values)
    elif recipe.schedule == "exponential":
        rate = schedules.ExponentialDecay(peak, steps_per_epoch, recipe.decay)
    elif recipe.schedule == "points":
        at = [m * steps_per_epoch for m in recipe.milestones]
        rate = Points(at, [peak * factor for factor in recipe.rates])
    else:
        last = recipe.final_rate if recipe.schedule == "linear" else 1  # else constant
        rate = schedules.PolynomialDecay(peak, steps, peak * last)
    return Warmup(rate, peak, warmup) if warmup else rate


def decayed(model) -> list:
    """Return the trainable variables that weight decay applies to.

    Not biases, and scales and offsets of normalisation layers: it would harm training.
    """
    norms = [one for one in model._flatten_layers() if isinstance(one, NORMALIZATION)]
    spared = {id(v) for layer in norms for v in layer.trainable_variables}
    weights = model.trainable_variables
    return [v for v in weights if id(v) not in spared and "bias" not in v.name]


def offsets(model) -> list:
    """Return the trainable offsets (beta) of the normalisation layers of a model."""
    norms = [one for one in model._flatten_layers() if isinstance(one, NORMALIZATION)]
    return [b for one in norms if (b := one.beta) is not None and b.trainable]


def last_layer(model):
    """Return the layer of the last kernel, also where it is in a model in the model."""
    variables = model.trainable_variables
    # Without any kernel the last variable stands for it: nothing is Muon's then.
    last = ([v for v in variables if len(v.shape) > 1] or variables)[-1]
    inside = ((one, one.trainable_variables) for one in model._flatten_layers())
    holders = [pair for pair in inside if any(v is last for v in pair[1])]
    return min(holders, key=lambda pair: len(pair[1]))[0]


class _Optimizer:
    """What the optimizers below do beyond those of Keras.

    - Some variables have a multiple of the learning rate: of the update's, after the
      gradients have been clipped, since a multiple of the gradient would be none with
      Adam. Weight decay, which uses the rate too, stays as it is.
    - A variable is updated by one kernel where TensorFlow has one.
    """

    scaled: frozenset = frozenset()  # keys of variables whose rate is multiplied
    factor = 1.0
    slots: tuple[str, ...] = ()  # the states that a kernel updates; none without one

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable, as Keras asks for it."""
        if self._var_key(variable) in self.scaled:
            learning_rate = learning_rate * self.factor
        slots = () if compiled_by_xla() else self.slots
        if slots and variable.dtype == "float32":
            import tensorflow as tf

            if isinstance(gradient, tf.Tensor):  # that of an embedding is sparse
                index = self._get_variable_index(variable)
                states = (getattr(self, slot)[index] for slot in slots)
                handles = [
                    (v.value if isinstance(v, keras.Variable) else v).handle
                    for v in (variable, *states)
                ]
                numbers = (tf.cast(n, tf.float32) for n in (gradient, learning_rate))
                self._kernel(tf, handles, *numbers)
                return
        super().update_step(gradient, variable, learning_rate)


class ScaledSGD(_Optimizer, keras.optimizers.SGD):
    """SGD with momentum, in a single pass over each variable."""

    @property
    def slots(self):
        """The momentum, if any."""
        return ("momentums",) if self.momentum else ()

    def _kernel(self, tf, handles, gradient, rate) -> None:
        states = dict(zip(("var", "accum"), handles, strict=True))
        own = {"momentum": self.momentum, "use_nesterov": self.nesterov}
        tf.raw_ops.ResourceApplyKerasMomentum(lr=rate, grad=gradient, **states, **own)


class ScaledAdam(_Optimizer, keras.optimizers.Adam):
    """Adam, in a single pass over each variable."""

    slots = "_momentums", "_velocities"

    def _kernel(self, tf, handles, gradient, rate) -> None:
        states = dict(zip(("var", "m", "v"), handles, strict=True))
        step = tf.cast(self.iterations + 1, tf.float32)
        own = {"beta1": self.beta_1, "beta2": self.beta_2, "epsilon": self.epsilon}
        own |= {"beta1_power": self.beta_1**step, "beta2_power": self.beta_2**step}
        tf.raw_ops.ResourceApplyAdam(lr=rate, grad=gradient, **states, **own)


class ScaledAdamW(ScaledAdam, keras.optimizers.AdamW):
    """AdamW, in a single pass over each variable."""


class ScaledMuon(_Optimizer, keras.optimizers.Muon):
    """Muon, for the kernels of convolutions too.

    Keras gives those to Adam; here they are matrices, a column a filter, as in airbench
    (https://github.com/KellerJordan/Muon). Adam updates the last layer, and what is no
    kernel.
    """

    by_adam: frozenset = frozenset()  # keys of kernels that Adam updates
    precision = "float32"  # of the products; the author's is bfloat16

    def _should_use_adamw(self, variable):
        return len(variable.shape) < 2 or self._var_key(variable) in self.by_adam

    def zeropower_via_newtonschulz5(self, x, steps):
        """Make a gradient orthogonal, as a matrix; of norm 1 any precision holds it."""
        matrix = keras.ops.reshape(x, (-1, x.shape[-1]))
        unit = keras.ops.cast(matrix / (keras.ops.norm(matrix) + 1e-20), self.precision)
        update = super().zeropower_via_newtonschulz5(unit, steps)
        return keras.ops.cast(keras.ops.reshape(update, x.shape), x.dtype)

    def lr_adjust(self, x):
        """Scale an update to the size that Adam's would have (arXiv 2502.16982)."""
        rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
        return x * (self.rms_rate * math.sqrt(max(rows, columns)))


def make_optimizer(recipe: Recipe, model, steps_per_epoch: int):
    """Return the Keras optimizer of a recipe for a built model, which gets its l2."""
    kinds = {"sgd": ScaledSGD, "adam": ScaledAdam, "adamw": ScaledAdamW}
    own = {}
    if recipe.optimizer == "sgd":
        own = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    elif recipe.optimizer == "muon":
        decay = recipe.weight_decay or None
        own = {"momentum": recipe.momentum, "adam_weight_decay": decay}
    optimizer = kinds.get(recipe.optimizer, ScaledMuon)(
        learning_rate=learning_rate(recipe, steps_per_epoch),
        weight_decay=recipe.weight_decay or None,
        global_clipnorm=recipe.clip_norm or None,
        use_ema=recipe.ema > 0,
        ema_momentum=recipe.ema or 0.99,
        **own,
    )
    if recipe.optimizer == "muon":
        last = last_layer(model)
        optimizer.precision = last.compute_dtype
        optimizer.by_adam = frozenset(map(optimizer._var_key, last.trainable_variables))
    if recipe.bias_rate != 1:
        optimizer.scaled = frozenset(map(optimizer._var_key, offsets(model)))
        optimizer.factor = recipe.bias_rate
    shrinking = {id(variable) for variable in decayed(model)}
    spared = [v for v in model.trainable_variables if id(v) not in shrinking]
    if recipe.weight_decay and spared:
        optimizer.exclude_from_weight_decay(var_list=spared)
    penalize(model, recipe)
    return optimizer


def penalize(model, recipe: Recipe) -> None:
    """Give a model's kernels the recipe's l2, if any: l2/2 · |w|², of gradient l2·w."""
    for variable in decayed(model) if recipe.l2 else ():
        variable.regularizer = keras.regularizers.L2(recipe.l2 / 2)


class Lookahead:
    """The slow average of a model's weights, and the blending of both.

    After every `every` steps of the optimizer, with t of all T steps done,

        slow += (1 - decay) · (weights - slow),  weights = slow,
        decay = 0.95^every · (t / T)^3,

    so that the weights move freely at first and are averaged strongly at the end; the
    slow weights are the result (Jordan 2024, arXiv 2404.00498, section 3.4). The moving
    statistics of batch normalisation are averaged too, as in the paper's code. The slow
    weights are variables of the optimizer, which has to be built, and saved with it.
    """

    def __init__(self, model, every: int, total: int):
        self.optimizer = model.optimizer
        self.every = every
        self.total = total
        self.weights = [v for v in model.weights if v.dtype.startswith("float")]
        self.slow = [
            self.optimizer.add_variable_from_reference(v, "slow") for v in self.weights
        ]
        checkpoint.assign(self.slow, checkpoint.values(self.weights))

    def blend(self) -> None:
        """Blend, where a multiple of `every` steps is done; else change nothing.

        Without a branch: it is part of a compiled training step of any backend.
        """
        step = self.optimizer.iterations
        due = keras.ops.equal(keras.ops.mod(step, self.every), 0)
        share = keras.ops.cast(step, "float32") / self.total
        fresh = 1 - 0.95**self.every * keras.ops.power(share, 3)
        for slow, weight in zip(self.slow, self.weights, strict=True):
            # Values first: the variables are about to be assigned.
            behind, ahead = map(keras.ops.convert_to_tensor, (slow, weight))
            blended = behind + fresh * (ahead - behind)
            slow.assign(keras.ops.where(due, blended, behind))
            weight.assign(keras.ops.where(due, blended, ahead))
