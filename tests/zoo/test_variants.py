"""Variants: builders with a signature and a docstring of their own."""

import inspect
import pydoc

import pytest

import zoo
from zoo import registry
from zoo.variants import variant


def family(rows, input_shape=(8, 8, 3), classes=10, *, width=1.0, name="family"):
    """Build nothing.

    Args:
        rows: of the table,
            in two lines.
        input_shape: (height, width, channels).
        width: multiplies: all of it.

    Raises:
        ValueError: always.
    """
    return {"rows": rows, "input_shape": input_shape, "width": width, "name": name}


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    return variant(family, "one_row", "Build one row.", {"rows": 1}, width=0.5)


def test_a_variant_has_a_signature_of_its_own(made):
    assert str(inspect.signature(made)) == (
        "(input_shape=(8, 8, 3), classes=10, *, width=0.5, name='one_row')"
    )
    assert (made.__name__, made.__module__) == ("one_row", __name__)
    assert zoo.builder("one_row") is made


def test_a_variant_has_a_whole_docstring(made):
    assert inspect.getdoc(made).splitlines() == [
        "Build one row.",
        "",
        "Args:",
        "    input_shape: (height, width, channels).",
        "    classes: number of classes.",
        "    width: multiplies: all of it.",
        "    name: name of the model.",
        "",
        "Returns:",
        "    A functional `keras.Model`: `image` (N, height, width, channels), pixels",
        "    0…255, to float32 (N, classes).",
        "",
        "Raises:",
        "    ValueError: always.",
    ]


def test_what_is_given_goes_to_the_family(made):
    given = {"rows": 1, "input_shape": (9, 9, 3), "width": 0.5, "name": "one_row"}
    assert made((9, 9, 3)) == given
    assert made((9, 9, 3), 5, width=2, name="mine") == {
        **given,
        "width": 2,
        "name": "mine",
    }


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((), {"widht": 1}, r"one_row\(\) got an unexpected keyword argument 'widht'"),
        ((), {"rows": 2}, r"one_row\(\) got an unexpected keyword argument 'rows'"),
        (((8, 8, 3), 10, 0.5), {}, r"one_row\(\) too many positional arguments"),
    ],
)
def test_an_argument_that_it_does_not_take_is_named(made, args, options, said):
    with pytest.raises(TypeError, match=said):
        made(*args, **options)


def test_help_tells_how_to_call_a_builder():
    from zoo import vgg

    told = pydoc.plain(pydoc.render_doc(vgg.vgg19))
    assert "vgg19(input_shape=(32, 32, 3), classes=10, *, width=1.0" in told
    for line in ("Build VGG19 with one dense layer.", "Args:", "width: multiplies"):
        assert line in told
    assert "batch_normalization" not in told
