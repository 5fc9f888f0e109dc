"""Which pixels of the image one place of a feature map depends on."""

from dataclasses import dataclass

from kerascnn.explain.recording import Recording
from kerascnn.receptive_field import ALL, reads, sizes


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels."""

    #: (first, last), cut at the image's border; (0, -1) where only zeros are seen
    rows: tuple[int, int]
    columns: tuple[int, int]
    exact: bool = True  #: False where a layer on the way does not say what it sees

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.rows[1] - self.rows[0] + 1

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.columns[1] - self.columns[0] + 1

    def __str__(self) -> str:
        if not self.height:
            return "nothing, only zeros of the padding"
        rows, columns = (f"{a} to {b}" for a, b in (self.rows, self.columns))
        text = f"rows {rows}, columns {columns} ({self.height}×{self.width} pixels)"
        return text if self.exact else f"at most {text}"


def region(recording: Recording, position: int, row: int, column: int) -> Region | None:
    """Find the pixels that one place of a call's output depends on.

    Followed back to the images, call by call; where branches meet, the region spans
    them all. Places outside of a feature map are the zeros of a padding, which depend
    on nothing. For an output without places, as of a dense layer, any row and column
    will do. None for a subclassed model.
    """
    if not recording.connected:
        return None
    start, image = recording.calls[position].outputs[0], recording.graph.inputs[0]
    mapped = len(start.shape) == 4
    places = ({row}, {column}) if mapped else _whole(recording, start)
    # Per tensor: the places that are read along each axis, and whether it is exact.
    # Which unit of a vector is meant is not followed.
    needed = {id(start): (places, mapped)}
    for call in reversed(recording.calls[: position + 1]):
        wanted = [needed[id(x)] for x in call.outputs if id(x) in needed]
        if not wanted:
            continue
        for given in call.inputs:
            found = _before(recording, call, given, *_joined(wanted))
            if all(found[0]):
                old = [needed[id(given)]] if id(given) in needed else []
                needed[id(given)] = _joined([*old, found])
    places, exact = needed.get(id(image), ((set(), set()), True))
    spans = ((min(axis), max(axis)) if axis else (0, -1) for axis in places)
    return Region(*spans, exact)


def _joined(entries):
    places, exact = zip(*entries, strict=True)
    union = tuple(set().union(*sets) for sets in zip(*places, strict=True))
    return union, all(exact)


def _whole(recording, tensor) -> tuple[set[int], ...]:
    shape = tuple(tensor.shape)
    # Of rank 3: images without an axis for their one channel.
    lengths = shape[1:] if len(shape) == 3 else sizes(tensor, recording.channels_first)
    return tuple(set(range(n)) for n in lengths)


def _before(recording, call, given, places, exact):
    """The places of an input that some places of an output read."""
    whole, output = _whole(recording, given), tuple(call.outputs[0].shape)
    found = reads(call, given, recording.channels_first)
    if found == ALL:
        return whole, True
    if len(given.shape) != len(output):
        if type(call.operation).__name__ in ("Flatten", "Reshape") and len(output) == 2:
            return whole, exact
        if len(given.shape) == 3 and output == (*given.shape, 1):
            return places, exact
        return whole, False
    if found is None or len(found) != len(whole) or not all(r.exact for r in found):
        return whole, False
    return tuple(
        {p for place in axis for p in read.at(place)} & known
        for axis, read, known in zip(places, found, whole, strict=True)
    ), exact
