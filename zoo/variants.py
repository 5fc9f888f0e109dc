"""Variants: the networks of a family, each by its numbers in the family's table."""

import inspect
import re

from zoo.registry import register

# What every builder takes and returns; a family's builder tells its own.
COMMON = {
    "classes": "number of classes.",
    "classifier_activation": '"softmax" for probabilities, None for logits.',
    "name": "name of the model.",
}
RETURNS = """Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes)."""


def variant(family, name, title, fixed, **defaults):
    """Make the builder of a variant from that of its family, and register it.

    It has the signature of the family's builder without what is fixed, and its
    docstring: `title` in place of the first lines, what is fixed left out, what every
    builder takes and returns (`COMMON`, `RETURNS`) added where the family's is silent.
    `fixed` are arguments of the family, such as `vgg(blocks, input_shape, …)`, that the
    variant does not take; `defaults` those that it has other default values for.
    """
    defaults["name"] = name
    signature = inspect.Signature(
        [
            parameter.replace(default=defaults.get(parameter.name, parameter.default))
            for parameter in inspect.signature(family).parameters.values()
            if parameter.name not in fixed
        ]
    )

    def build(*args, **options):
        try:
            given = signature.bind(*args, **options)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        given.apply_defaults()
        return family(**fixed, **given.arguments)

    build.__name__ = build.__qualname__ = name
    build.__module__ = family.__module__
    build.__signature__ = signature
    build.__doc__ = _docstring(family.__doc__, title, signature.parameters)
    return register(build)


def _docstring(whole, title, parameters):
    _, _, rest = whole.partition("    Args:\n")
    entries, *sections = rest.rstrip().split("\n\n    ")
    told = dict(COMMON)
    for entry in re.split(r"^ {8}(?=\w+: )", entries, flags=re.MULTILINE)[1:]:
        name, _, text = entry.partition(": ")
        told[name] = text.rstrip()
    if not any(section.startswith("Returns:") for section in sections):
        sections.insert(0, RETURNS)
    arguments = "".join(f"\n        {name}: {told[name]}" for name in parameters)
    return "\n\n    ".join([title, f"Args:{arguments}", *sections]) + "\n    "
