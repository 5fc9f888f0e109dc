"""From a request's arrays to its outputs: the checks that both protocols share."""

import numpy as np

from kerascnn.serving.http import images
from kerascnn.serving.http.errors import RequestError, invalid
from kerascnn.serving.http.limits import Limits
from kerascnn.serving.http.repository import Served
from kerascnn.serving.http.saved_model import Signature

# The input of `serve_bytes`, as `kerascnn.serving.export` names it.
ENCODED = "image_bytes"


async def infer(
    served: Served,
    signature: Signature,
    arrays: dict[str, np.ndarray],
    limits: Limits,
    places: dict[str, str],
) -> tuple[dict[str, np.ndarray], int]:
    """Check the inputs of a request and let a version compute the outputs.

    Args:
        served: the version, which the caller holds.
        signature: one of its signatures.
        arrays: an array for each of its inputs.
        limits: `images` and `pixels` are read.
        places: for each input how messages name one of its images: "instances[{}]".

    Returns:
        The outputs by name, and the number of images.

    Raises:
        RequestError: 400 for a wrong shape or a hostile image, 413 for too many
            images, 503 for a full queue.
    """
    for name, array in arrays.items():
        signature.inputs[name].fit(array)
    count = 1
    if signature.batched:
        counts = {name: len(array) for name, array in arrays.items()}
        count = next(iter(counts.values()))
        if len(set(counts.values())) > 1:
            raise invalid(f"the inputs have different numbers of images: {counts}")
        if not count:
            raise invalid("the request has no images; send one or more")
        if count > limits.images:
            raise RequestError(
                413,
                f"a request has at most {limits.images:,} images; received {count:,}: "
                "send them in several requests",
            )
    weights = None
    for name, array in arrays.items():
        if array.dtype.kind == "O" and name == ENCODED:
            weights = [
                images.pixels(encoded, places[name].format(number), limits.pixels)
                for number, encoded in enumerate(array.ravel())
            ]
    return await served.batchers[signature.name].submit(arrays, weights), count
