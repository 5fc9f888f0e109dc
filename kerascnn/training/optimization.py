"""From a recipe to a Keras optimizer, a schedule and a precision."""

import pathlib
import platform

import keras

from kerascnn.training.recipe import Recipe

NORMALIZATION = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)


@keras.saving.register_keras_serializable(package="kerascnn")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Grow the rate linearly from 0 to the peak, then follow another schedule.

    Args:
        after: the schedule to follow, its step 0 being the end of the warm-up.
        peak: the learning rate that the warm-up reaches.
        steps: length of the warm-up, in steps of the optimizer.
    """

    def __init__(self, after, peak, steps):
        super().__init__()
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

    def get_config(self):
        """Return the arguments of the constructor."""
        after = keras.saving.serialize_keras_object(self.after)
        return {"after": after, "peak": self.peak, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        """Rebuild from `get_config`."""
        after = keras.saving.deserialize_keras_object(config["after"])
        return cls(after, config["peak"], config["steps"])


def learning_rate(recipe: Recipe, steps_per_epoch: int):
    """Return the learning rate of a recipe as a Keras schedule over steps."""
    schedules = keras.optimizers.schedules
    warmup = round(recipe.warmup * steps_per_epoch)
    steps = max(recipe.epochs * steps_per_epoch - warmup, 1)
    peak = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = schedules.CosineDecay(peak, steps, alpha=recipe.final_rate)
    elif recipe.schedule == "linear":
        rate = schedules.PolynomialDecay(peak, steps, peak * recipe.final_rate)
    elif recipe.schedule == "steps":
        # A milestone counts from the start of the training, warm-up included.
        at = [round(m * steps_per_epoch) - warmup for m in recipe.milestones]
        values = [peak * recipe.decay**n for n in range(len(at) + 1)]
        rate = schedules.PiecewiseConstantDecay(at, values)
    else:
        rate = schedules.PolynomialDecay(peak, steps, peak)
    return Warmup(rate, peak, warmup) if warmup else rate


def decayed(model) -> list:
    """Return the trainable variables that weight decay applies to.

    Biases and the scales and offsets of normalisation layers are left alone: decaying
    them does not limit what the network can express, and it harms training.
    """
    spared = {
        id(variable)
        for layer in model._flatten_layers()
        if isinstance(layer, NORMALIZATION)
        for variable in layer.trainable_variables
    }
    return [
        variable
        for variable in model.trainable_variables
        if id(variable) not in spared and "bias" not in variable.name
    ]


def make_optimizer(recipe: Recipe, model, steps_per_epoch: int):
    """Return the Keras optimizer of a recipe for a built model.

    Where the recipe has `l2`, the model's kernels get the regulariser l2/2 · |w|²: its
    gradient is l2 · w.
    """
    options = {
        "learning_rate": learning_rate(recipe, steps_per_epoch),
        "weight_decay": recipe.weight_decay or None,
        "global_clipnorm": recipe.clip_norm or None,
        "use_ema": recipe.ema > 0,
        "ema_momentum": recipe.ema or 0.99,
    }
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            momentum=recipe.momentum, nesterov=recipe.nesterov, **options
        )
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(**options)
    else:
        optimizer = keras.optimizers.Adam(**options)
    shrinking = {id(variable) for variable in decayed(model)}
    spared = [v for v in model.trainable_variables if id(v) not in shrinking]
    if recipe.weight_decay and spared:
        optimizer.exclude_from_weight_decay(var_list=spared)
    if recipe.l2:
        for variable in decayed(model):
            variable.regularizer = keras.regularizers.L2(recipe.l2 / 2)
    return optimizer


def resolve_precision(precision: str) -> str:
    """Return the dtype policy to train in; "auto" is decided by the machine.

    "auto" is mixed_bfloat16 where it is fast: on processors with bfloat16 instructions
    (AVX512-BF16, AMX) and on accelerators; float32 elsewhere.
    """
    if precision != "auto":
        return precision
    if any(
        not device.startswith("cpu") for device in keras.distribution.list_devices()
    ):
        return "mixed_bfloat16"
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if platform.system() == "Linux" and cpuinfo.exists():
        flags = cpuinfo.read_text()
        if "avx512_bf16" in flags or "amx_bf16" in flags:
            return "mixed_bfloat16"
    return "float32"


def set_precision(model, policy: str) -> None:
    """Set the dtype policy of every layer of a built model.

    The variables stay float32. Only the layers that a builder fixed to float32 under
    every policy, such as the final softmax, have to be left out by the caller.
    """
    for layer in model._flatten_layers():
        layer.dtype_policy = policy
