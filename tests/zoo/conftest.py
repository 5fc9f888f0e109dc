"""What the tests of the zoo share: counting, small versions, one build a network."""

import functools
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo

sys.path.insert(0, str(Path(__file__).parent))  # differentiation.py

if keras.config.backend() == "jax":
    import jax

    # A test compiles hundreds of small operations and runs each of them twice.
    jax.config.update("jax_disable_most_optimizations", True)

    def by_numpy(name, draw):
        """Draw initial weights by NumPy: JAX would compile each shape, for a second."""
        original = getattr(jax.random, name)

        def sample(key, *args, shape=(), dtype="float32", **options):
            if isinstance(key, jax.core.Tracer) or args:
                return original(key, *args, shape=shape, dtype=dtype, **options)
            rng = np.random.default_rng(np.asarray(key))
            return jax.numpy.asarray(draw(rng, shape, **options), dtype)

        setattr(jax.random, name, sample)

    def truncated(rng, shape, lower, upper):
        values = rng.normal(size=shape)
        while (outside := (values < lower) | (values > upper)).any():
            values[outside] = rng.normal(size=outside.sum())
        return values

    by_numpy("normal", lambda rng, shape: rng.normal(size=shape))
    by_numpy("truncated_normal", truncated)
    by_numpy(
        "uniform",
        lambda rng, shape, minval=0.0, maxval=1.0: rng.uniform(minval, maxval, shape),
    )


@dataclass(frozen=True)
class Counts:
    trainable: int
    non_trainable: int
    macs: int  # of convolutions and dense layers, one image
    depth: int  # such layers on the longest path


@pytest.fixture(scope="session")
def count():
    """Recount a model by its layers, on its own: without the package's own summary."""

    def count(model):
        deep, macs = {}, 0  # deep: weighted layers up to each tensor of the graph
        for layer in model.operations:
            work = _macs(layer)
            macs += work
            before = [deep[id(t)] for t in _inputs(layer)]
            for tensor in keras.tree.flatten(layer.output):
                deep[id(tensor)] = max(before, default=0) + (work > 0)
        return Counts(
            trainable=_scalars(model.trainable_variables),
            non_trainable=_scalars(model.non_trainable_variables),
            macs=macs,
            depth=max(deep[id(t)] for t in model.outputs),
        )

    return count


def _inputs(layer):
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return keras.tree.flatten(layer.input)


def _macs(layer):
    if hasattr(layer, "macs"):  # the hook of the zoo's own layers
        return layer.macs(layer.input.shape, layer.output.shape)
    if hasattr(layer, "kernel"):  # a kernel is used once at every place of the output
        return math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    heavy = [v.path for v in getattr(layer, "weights", []) if len(v.shape) > 1]
    if heavy:
        raise ValueError(f"{heavy[0]}: its layer needs a method macs() to be counted")
    return 0


def _scalars(variables):
    """Number of weights; the states of random generators are none."""
    return sum(
        math.prod(v.shape) for v in variables if not v.path.endswith("generator_state")
    )


@pytest.fixture(scope="session")
def blueprint():
    """Build a network of any size without allocating its weights."""

    def blueprint(builder, *args, **options):
        with keras.StatelessScope(initialize_variables=False):
            model = builder(*args, **options)
        # Keras has noted the variables without values, to fill them in later: forget.
        keras.utils.clear_session(free_memory=False)
        return model

    return blueprint


@pytest.fixture(scope="session")
def pixels():
    """Draw random images (2, height, width, channels) of pixels 0…255, uint8."""

    def pixels(shape, images=2, seed=0):
        random = np.random.default_rng(seed)
        return random.integers(0, 256, (images, *shape), dtype=np.uint8)

    return pixels


@pytest.fixture(scope="session")
def run():
    """Run a model on images, as it predicts, and return an array."""

    def run(model, images):
        return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))

    return run


class Network:
    """The small version of one network of the zoo, built once for all its tests."""

    def __init__(self, name):
        self.name = name
        self.card = zoo.card(name)
        slim = dict(self.card.slim)
        self.shape = tuple(slim.pop("input_shape", self.card.input_shape))
        self.classes = slim.pop("classes", min(self.card.classes, 10))
        self.slim = slim

    def build(self, input_shape=None, classes=None, **options):
        """Build the small version, from the same seed every time."""
        keras.utils.set_random_seed(1)
        return zoo.build(
            self.name,
            input_shape or self.shape,
            classes or self.classes,
            **{**self.slim, **options},
        )

    @functools.cached_property
    def model(self):
        return self.build()

    @functools.cached_property
    def logits(self):
        return self.build(classifier_activation=None)


@pytest.fixture(scope="module")
def network(request):
    """The network that a test is parametrised with: indirect, by its name."""
    return Network(request.param)
