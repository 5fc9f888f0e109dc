"""One model, layer by layer: where its parameters, computations and memory are.

The rows are those of `model.summary()`, with the expressions of their parameters.
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from kerascnn.arithmetic import Worked, evaluate, storage
from kerascnn.costs import depth, is_free, macs, takes_part
from kerascnn.graph import Graph, functional, trace
from kerascnn.plotting.style import shape_text
from kerascnn.receptive_field import ALL, most_pixels, receptive_fields
from kerascnn.tables import UNKNOWN, Column, Table, Tabled, format_bytes


class Counted:
    """What holds parameters."""

    trainable: int
    non_trainable: int

    @property
    def parameters(self) -> int:
        """All parameters, as `model.count_params()` counts them."""
        return self.trainable + self.non_trainable

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters in float32."""
        return int(storage(self.parameters))


@dataclass(frozen=True)
class Row(Counted):
    """One layer of a model. None is what cannot be known, never 0."""

    name: str
    type: str  # class of the layer
    level: int  # 0, or how many nested models are around it
    calls: int  # above 1: the layer is shared; what each call costs is added up
    output_shape: tuple | None  # of one image; a tuple of shapes for several outputs
    expression: str  # "5·5·3·32"; empty for none and for the sum of a nested model
    trainable: int  # those of an earlier row left out
    non_trainable: int
    macs: int | None = None  # multiply-accumulates, forward, one image
    memory: int | None = None  # bytes of the output, one image
    receptive_field: tuple[int, ...] | str | None = None  # pixels of an axis, or "all"
    share: float = 0.0  # of the model's parameters, 0…1


@dataclass(frozen=True)
class Summary(Counted, Tabled):
    """What `summarize` found; `str()` is a table, and so are the three exports."""

    name: str
    rows: tuple[Row, ...]
    input_shape: tuple | None  # of one image; a tuple of shapes for several inputs
    dtype: str  # of the activations
    trainable: int
    non_trainable: int
    macs: int | None  # None where those of a layer are unknown
    memory: int | None  # bytes of all activations, one image
    depth: int | None  # layers with weights on the longest way
    optimizer: int  # numbers of the optimizer, which are no parameters

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the layers whose multiply-accumulates are unknown."""
        return tuple(r.name for r in self.rows if r.level == 0 and r.macs is None)

    @property
    def totals(self) -> dict[str, Any]:
        """The counts of the whole model, by name."""
        keys = "parameters trainable non_trainable macs memory depth optimizer"
        counts = {key: getattr(self, key) for key in [*keys.split(), "weight_bytes"]}
        return {**counts, "uncounted": list(self.uncounted)}

    def table(self) -> Table:
        """Return the rows as a table, the totals as its notes."""
        # A column of zeros says nothing.
        hidden = None if self.non_trainable else "non_trainable"
        columns = [column for column in _COLUMNS if column.key != hidden]
        rows = [asdict(row) | _shown(row) for row in self.rows]
        return Table(columns, rows, title=self.name, notes=tuple(_notes(self)))

    def _data(self) -> Table:
        rows = [{**asdict(row), "parameters": row.parameters} for row in self.rows]
        return Table((), rows)

    def to_csv(self) -> str:
        """Render as CSV, a line a layer; shapes are JSON lists, unknown is empty."""
        return self._data().to_csv()

    def to_json(self) -> str:
        """Render as a JSON object: model, input_shape, dtype, totals and rows."""
        beside = {"input_shape": self.input_shape, "dtype": self.dtype}
        return self._data().to_json(model=self.name, **beside, totals=self.totals)


def summarize(
    model: Any,
    *,
    expand_nested: bool = False,
    dtype: str = "float32",
    input_shape: tuple[int, ...] | None = None,
) -> Summary:
    """Count what each layer of a built Keras model holds, costs and sees.

    Parameters are exact; of a subclassed model nothing else is known. Multiply-
    accumulates are forward, for one image (`kerascnn.costs`). The memory is that of
    every output, the input's among them, but for Flatten and Reshape. The receptive
    field is the largest over the branches, not cut at the border of the image.

    `expand_nested` gives nested layers rows below their model's, which holds their sum;
    `dtype` is that of the activations; `input_shape`, of one image, is for a model that
    leaves its size open. ValueError where the model is not built, does not agree with
    `input_shape`, or a layer misstates its number of parameters.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(f"received {type(model).__name__}, which is no keras.Model")
    if not model.built:
        told = "give it an Input layer, or call model.build((None, 32, 32, 3))"
        raise ValueError(f"the model {model.name!r} is not built: {told}")
    graph, parameters = trace(model, input_shape), _size(model.weights)
    counter = _Counter(graph, int(storage(1, dtype)), parameters)
    rows = counter.rows(model, (), expand_nested)
    rest = [w for w in model.weights if id(w) not in counter.counted]
    if rest:  # what a subclassed model holds outside of its layers
        total, learned = _size(rest), _size(w for w in rest if w.trainable)
        own = "its own weights", 0, 1, None, _products(rest), learned, total - learned
        rows.append(Row(model.name, *own, share=total / parameters))
    top = [row for row in rows if row.level == 0]
    optimizer = getattr(model, "optimizer", None)
    return Summary(
        name=model.name,
        rows=tuple(rows),
        input_shape=_shape(graph.inputs) if graph else None,
        dtype=dtype,
        trainable=_size(model.trainable_weights),
        non_trainable=_size(model.non_trainable_weights),
        # A subclassed model's own call may multiply too.
        macs=_sum(row.macs for row in top) if graph else None,
        memory=_sum(row.memory for row in top),
        depth=depth(graph) if graph else None,
        optimizer=_size(optimizer.variables) if optimizer and optimizer.built else 0,
    )


class _Counter:
    """Makes the rows of a model; remembers which weights were counted."""

    def __init__(self, graph: Graph | None, value_bytes: int, parameters: int):
        self.graph, self.bytes, self.parameters = graph, value_bytes, parameters
        self.fields = receptive_fields(graph) if graph else {}
        self.counted: set[int] = set()

    def rows(self, model, parents: tuple, expand: bool) -> list[Row]:
        import keras

        # As `model.summary()` lists them; bare operations are among the operations.
        plain = isinstance(model, keras.Sequential) or functional(model) is None
        rows = []
        for layer in model.layers if plain else model.operations:
            before = set(self.counted)
            rows.append(self.row(layer, parents))
            if expand and functional(layer):
                # The row of the model holds the sum; its layers count theirs again.
                after, self.counted = self.counted, before
                rows += self.rows(layer, (*parents, layer), expand)
                self.counted = after
        return rows

    def row(self, layer, parents: tuple) -> Row:
        weights = getattr(layer, "weights", [])
        new = {id(w): w for w in weights if id(w) not in self.counted}
        self.counted |= set(new)
        learned, total = getattr(layer, "trainable_weights", []), _size(new.values())
        trainable = _size(w for w in learned if id(w) in new)
        within, nested = (*parents, layer), functional(layer) is not None
        graph = self.graph or Graph((), (), (), ())
        listed = graph.nested if nested else graph.calls
        calls = [c for c in listed if c.operation is layer and c.parents == parents]
        inner = calls
        if nested:  # the calls of all its layers
            inner = [c for c in graph.calls if c.parents[: len(within)] == within]
        outputs = [_shape(call.outputs) for call in calls]
        seen = most_pixels([self.fields[id(x)] for c in calls for x in c.outputs])
        viewed = ("Flatten", "Reshape")
        copied = (c for c in inner if type(c.operation).__name__ not in viewed)
        kept = [x.shape[1:] for call in copied for x in call.outputs]
        if type(layer).__name__ == "InputLayer":
            outputs = [tuple(layer.batch_shape[1:])]
            # A pixel is itself; what one of a nested model's inputs has seen depends
            # on the call, and its images are the output of the layer before it.
            seen = None if parents else (1,) * (len(layer.batch_shape) - 2) or None
            alone = len(graph.inputs) == 1
            outer = graph.inputs[0].shape if alone else layer.batch_shape
            kept = [] if parents else [outer[1:]]
        values = _sum(None if None in shape else math.prod(shape) for shape in kept)
        memory = None if values is None else values * self.bytes
        return Row(
            name=layer.name,
            type=type(layer).__name__,
            level=len(parents),
            calls=len(calls) or 1,
            output_shape=outputs[-1] if outputs else _built_shape(layer),
            expression=_expression(layer, new, weights),
            trainable=trainable,
            non_trainable=total - trainable,
            macs=_sum(map(macs, inner)) if self.graph or is_free(layer) else None,
            memory=memory if self.graph else None,
            receptive_field=seen,
            share=total / (self.parameters or 1),
        )


def _size(weights) -> int:
    """Numbers in weights, each weight once."""
    return sum(math.prod(w.shape) for w in {id(w): w for w in weights}.values())


def _shape(tensors) -> tuple:
    """Shape of one image, or one for each tensor."""
    shapes = tuple(tuple(x.shape[1:]) for x in tensors)
    return shapes[0] if len(shapes) == 1 else shapes


def _built_shape(layer) -> tuple | None:
    """Output shape of a layer of a subclassed model, where the layer can tell."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    if shape is None or not all(isinstance(d, int | None) for d in shape):
        return None
    try:
        output = tuple(layer.compute_output_shape(tuple(shape))[1:])
    except NotImplementedError:
        return None
    return output if all(isinstance(d, int) for d in output) else None


_COUNTED = "counted above"


def _expression(layer, new: dict, weights: list) -> str:
    """Where a layer's parameters come from, as a product of its weights' shapes."""
    if not new:
        return _COUNTED if weights else ""
    if functional(layer):
        return ""  # the sum over its layers
    said = takes_part(layer) and hasattr(layer, "parameter_expression")
    if not said or len(new) < len(weights):
        return _products(new.values())
    expression, count = layer.parameter_expression(), _size(weights)
    if (value := evaluate(expression)) != count:
        told = f"parameter_expression() is {expression!r}, which is {value}"
        raise ValueError(f"the layer {layer.name!r} holds {count:,} parameters; {told}")
    return expression


def _products(weights) -> str:
    """ "5·5·3·32 + 32" for a kernel and its bias, "4·32" for four vectors of 32."""
    shapes = Counter(tuple(w.shape) or (1,) for w in weights).items()
    factors = ((n, *shape) if n > 1 else shape for shape, n in shapes)
    return " + ".join("·".join(map(str, product)) for product in factors)


def _sum(values) -> int | None:
    """The sum, unknown where a value is."""
    values = list(values)
    return None if None in values else sum(values)


def _shown(row: Row) -> dict[str, str]:
    nested = "  " * (row.level - 1) + "└ " if row.level else ""
    shared = f" (shared ×{row.calls})" if row.calls > 1 else ""
    count = str(Worked(row.parameters, row.expression))
    if row.expression == _COUNTED:
        count = f"{row.parameters:,} ({_COUNTED})"
    return {"layer": f"{nested}{row.name}{shared}", "arithmetic": count}


def show_shape(shape: tuple) -> str:
    """Write the shape of an image, or several, for people: "32×32×3"."""
    if shape and isinstance(shape[0], tuple):
        return ", ".join(show_shape(s) for s in shape)
    return shape_text(shape) or "1"


def show_field(field) -> str:
    """Write a receptive field for people: "14", "5×1", "all"."""
    alike = field != ALL and len(set(field)) == 1
    return field if field == ALL else "×".join(map(str, field[:1] if alike else field))


_COLUMNS = (
    Column("layer", "Layer", right=False),
    Column("type", "Type", right=False, optional=3),
    Column("output_shape", "Output", show_shape),
    Column("arithmetic", "Parameters"),
    Column("non_trainable", "Not trained", "{:,}".format),
    Column("share", "Share", "{:.1%}".format, optional=4),
    Column("macs", "MACs", "{:,}".format, unknown="?"),
    Column("memory", "Memory", format_bytes, optional=2, unknown="?"),
    Column("receptive_field", "Sees", show_field, optional=1),
)


def _notes(found: Summary):
    size = format_bytes(found.weight_bytes)
    yield (
        f"Parameters: {found.parameters:,} ({size} as float32), of them "
        f"{found.trainable:,} trainable, {found.non_trainable:,} not"
    )
    known = f"{sum(r.macs or 0 for r in found.rows if r.level == 0):,}"
    rest = ""
    if found.macs is None:
        named = ", ".join(found.uncounted[:5]) or "its own call"
        more = ", …" if len(found.uncounted) > 5 else ""
        rest = f" and those of {named}{more}: unknown, so at least {known}"
    yield f"MACs for one image: {known}{rest}"
    memory = UNKNOWN if found.memory is None else format_bytes(found.memory)
    yield f"Activations of one image: {memory} as {found.dtype}"
    if found.depth is not None:
        yield f"Depth: {found.depth} layer{'s' * (found.depth != 1)} with weights"
    if found.optimizer:
        told = "no parameters, which model.summary() adds to its total"
        yield f"Optimizer: {found.optimizer:,} further numbers, {told}"
