"""The MLP twin of a CNN: the fully-connected network over the same volumes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerascnn.arithmetic import Worked, mlp_parameters, product, storage
from kerascnn.costs import depths
from kerascnn.graph import bottlenecks, trace
from kerascnn.tables import format_bytes


@dataclass(frozen=True)
class Twin:
    """A fully-connected network whose layers are the volumes of a CNN."""

    name: str  # of the CNN
    input_shape: tuple[int, ...]  # (height, width, channels) of its images
    volumes: tuple[tuple[int, ...], ...]  # behind each size, from image to classes
    bias: bool = False  # whether the parameters count one bias for each unit

    @property
    def units(self) -> tuple[Worked, ...]:
        """Units of each layer with their product: 16·16·32 = 8,192."""
        return tuple(product(*volume) for volume in self.volumes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer: (3072, 8192, 1024, 512, 10) for the lecture's CNN."""
        return tuple(int(units) for units in self.units)

    @property
    def parameters(self) -> Worked:
        """Number of parameters, with the expression that gives it."""
        return mlp_parameters(*self.sizes, bias=self.bias)

    def __str__(self) -> str:
        lines = [f"The MLP over the volumes of {self.name}:"]
        lines += [f"  {units}" for units in self.units]
        return "\n".join([*lines, f"Parameters: {self.parameters}"])

    def build(self, *, limit: int | None = None, **options):
        """Build the network: `zoo.dense_mlp`, with its further arguments in `options`.

        MemoryError where its parameters take more than `limit` bytes in float32, by
        default half of the memory here; ValueError where an image has not three axes.
        """
        if len(self.input_shape) != 3:
            told = f"(height, width, channels); those of {self.name}"
            raise ValueError(f"dense_mlp takes images {told} are {self.input_shape}")
        limit = memory() // 2 if limit is None else limit
        needed = storage(self.parameters)
        if needed > limit:
            told = f"{limit:,} bytes are allowed: take smaller images, or raise limit="
            size = f"{needed:,} bytes ({format_bytes(needed)}) in float32"
            raise MemoryError(f"the MLP twin of {self.name} takes {size}; {told}")
        import zoo

        _, *hidden, classes = self.sizes
        options = {"hidden": hidden, "use_bias": self.bias, **options}
        return zoo.builder("dense_mlp")(self.input_shape, classes, **options)


def mlp_twin(model: Any, *, bias: bool = False) -> Twin:
    """Find the fully-connected network over the same volumes as a CNN's.

    As on the lecture's slide "Parameters", a convolution and the pooling behind it are
    one hidden layer; so is a block of branches. ValueError where `model` is no built
    Sequential or functional model of one input, or leaves sizes open.
    """
    graph = trace(model) if model.built else None  # of several outputs the first counts
    if graph is None or len(graph.inputs) != 1:
        wanted = "a built Sequential or functional model with one input"
        raise ValueError(f"the MLP twin is made of {wanted}; received {model.name!r}")
    output = graph.outputs[0]
    # How many layers with weights lie before each place; of the places with equally
    # many, the last is the one just before the next layer with weights.
    before = depths(graph)
    places = {before[id(x)]: x for x in bottlenecks(graph, output)}
    places[before[id(output)]] = output
    places[0] = graph.inputs[0]
    volumes = tuple(tuple(places[n].shape[1:]) for n in sorted(places))
    if any(None in volume for volume in volumes):
        wrong = f"leaves the size of its images open: {volumes[0]}"
        raise ValueError(f"{model.name!r} {wrong}; build it with an input shape")
    return Twin(model.name, volumes[0], volumes, bias)


def memory() -> int:
    """Return the bytes of memory of this computer, or of the container it runs in."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        found = 8 * 2**30  # a system that does not say: a common computer's memory
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup", file)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            found = min(found, int(text))
    return found
