"""Every network of the zoo is explained: a handful by default, all if slow."""

import keras
import numpy as np
import pytest

import zoo
from kerascnn.costs import is_a
from kerascnn.explain import (
    activation_maps,
    filters,
    gradcam,
    occlusion,
    saliency,
    trace,
)
from kerascnn.explain.cell import _SUMS
from kerascnn.explain.recording import prepared, record

HANDFUL = ("lecture_cnn", "dense_mlp", "vgg16", "resnet20", "maxout_cnn")
WITHOUT_MAPS = ("dense_mlp", "linear")


def _networks():
    for name in zoo.names():
        marks = () if name in HANDFUL else (pytest.mark.slow,)
        yield pytest.param(name, marks=marks)


def _slim(name):
    card = zoo.card(name)
    slim = dict(card.slim)
    shape = tuple(slim.pop("input_shape", card.input_shape))
    classes = slim.pop("classes", min(card.classes, 10))
    keras.utils.set_random_seed(1)
    return zoo.build(name, shape, classes, **slim), shape


@pytest.mark.parametrize("name", list(_networks()))
def test_a_network_of_the_zoo_is_explained(name):
    model, shape = _slim(name)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    seen = record(model, prepared(model, image))
    if not _draws(model):
        answers = keras.tree.flatten(model(image[None], training=False))[0]
        answers = keras.ops.convert_to_numpy(answers)
        found = keras.ops.convert_to_numpy(seen.graph.outputs[0])
        np.testing.assert_allclose(found, answers, atol=1e-4)
    calls = zip(seen.names, seen.calls, strict=True)
    able = [name for name, call in calls if is_a(call.operation, _SUMS)]
    # The first, a middle and the last sum, each checked against the model's value.
    for layer in {able[0], able[len(able) // 2], able[-1]}:
        found = trace(model, image, layer)
        assert found.cell.model_value == pytest.approx(found.cell.value, rel=5e-3)
    assert len(found.stages) == len(seen.calls)
    assert str(found)
    assert filters(model).filters.size > 0
    maps = saliency(model, image)
    assert maps.heat.shape == shape[:2] and maps.heat.max() > 0
    assert occlusion(model, image, stride=max(1, shape[0] // 4)).heat.shape == shape[:2]
    if name in WITHOUT_MAPS:
        with pytest.raises(ValueError, match="no feature maps"):
            gradcam(model, image)
        return
    assert gradcam(model, image).heat.shape == shape[:2]
    assert activation_maps(model, image).maps.ndim == 3


def _draws(model):
    """Whether a network draws at inference: then no two runs are alike."""
    return any("Fractional" in type(x).__name__ for x in model._flatten_layers())
