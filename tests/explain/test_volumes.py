"""A network as volumes: which layers make one, and what each costs."""

import keras
import pytest
from keras import layers
from PIL import Image

import zoo
from kerascnn import explain
from kerascnn.graph import without_weights
from kerascnn.summary import summarize


def blueprint(name, **options):
    card = zoo.card(name)
    with without_weights():
        model = zoo.build(name, card.input_shape, card.classes, **options)
        return explain.volumes(model), summarize(model)


def test_the_lectures_network_is_the_slides_row_of_volumes():
    found, _ = blueprint("lecture_cnn")
    shapes = [(32, 32, 3), (32, 32, 32), (16, 16, 32), (16, 16, 16)]
    shapes += [(8, 8, 16), (8, 8, 32), (4, 4, 32), (512,), (10,)]
    assert [v.shape for v in found.volumes] == shapes
    parameters = [0, 2_400, 0, 12_800, 0, 12_800, 0, 0, 5_120]
    assert [v.parameters for v in found.volumes] == parameters
    macs = [0, 2_400 * 32**2, 0, 12_800 * 16**2, 0, 12_800 * 8**2, 0, 0, 5_120]
    assert [v.macs for v in found.volumes] == macs
    assert [v.layers_text for v in found.volumes[2:4]] == ["MaxPooling2D", "Conv2D"]
    assert "38.6 %" in str(found) and "37.5 %" in str(found)


@pytest.mark.parametrize(
    ("name", "sizes", "convolutions"),
    [
        # Table 6 of the paper: 1 + 2n, 2n and 2n layers, here n = 18.
        ("resnet110", [32, 32, 16, 8], [0, 37, 36, 36]),
        # Table 1 of the paper: two, five and two modules of six convolutions.
        ("googlenet_imagenet", [224, 112, 56, 28, 14, 7], [0, 1, 2, 12, 30, 12]),
        # Without padding the maps lose rows between the poolings: no volumes of theirs.
        ("deep_cnin", [32, 94, 46, 22, 10, 4, 2, 1], [0, 1, 2, 2, 2, 2, 1, 2]),
    ],
)
def test_a_volume_is_what_lies_between_two_reductions(name, sizes, convolutions):
    found, summary = blueprint(name)
    maps = [v for v in found.volumes if len(v.shape) == 3]
    assert [v.shape[0] for v in maps] == sizes
    assert [dict(v.layers).get("Conv2D", 0) for v in maps] == convolutions
    assert found.aside == 0
    assert sum(v.parameters for v in found.volumes) == summary.parameters
    assert sum(v.macs for v in found.volumes) == summary.macs


def test_dense_layers_of_one_length_are_volumes_of_their_own():
    found, _ = blueprint("vgg19_imagenet")
    assert [v.shape for v in found.volumes[-4:]] == [
        (25_088,),
        (4096,),
        (4096,),
        (1000,),
    ]


def test_layers_on_the_way_to_another_output_stand_aside():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same")(image)
    aside = layers.Dense(7)(layers.Flatten()(x))
    x = layers.Conv2D(5, 3, strides=2, padding="same")(x)
    answer = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    found = explain.volumes(keras.Model(image, [answer, aside]))
    shapes = [(8, 8, 3), (8, 8, 4), (4, 4, 5), (5,), (2,)]
    assert [v.shape for v in found.volumes] == shapes
    assert found.aside == 8 * 8 * 4 * 7 + 7
    assert "aside, on the way to other outputs: 1,799 parameters" in str(found)


def test_the_picture_says_what_it_shows(tmp_path):
    found, _ = blueprint("dense_mlp")
    figure = found.plot(tmp_path / "mlp.png")
    with Image.open(tmp_path / "mlp.png") as picture:
        assert picture.info["Description"] == found.description
    assert "8192 (Dense; 25,165,824 parameters)" in found.description
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[::2] == ["32×32×3", "3072", "8192", "1024", "512", "10"]
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert heights == pytest.approx([0, 0, 73.836, 24.612, 1.538, 0.015], abs=1e-3)


def test_what_has_no_graph_is_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.fc = layers.Dense(2)

        def call(self, x):
            return self.fc(x)

    model = Subclassed()
    model(keras.ops.zeros((1, 3)))
    with pytest.raises(ValueError, match="received the Subclassed 'own': summarize"):
        explain.volumes(model)
    with pytest.raises(TypeError, match="received str"):
        explain.volumes("vgg19")
