"""A short hash that says which images a result was measured on."""

import hashlib
import json

import numpy as np

from kerascnn.data.types import Images


def fingerprint(labels: tuple[str, ...], *parts: Images) -> str:
    """Hash the names of the classes and every part: shapes, pixels, classes, order.

    Args:
        labels: names of the classes.
        *parts: the parts of a data set, in a fixed order (train, test).

    Returns:
        The first 16 hexadecimal digits of a SHA-256. The byte order of the machine
        and the layout of the arrays in memory do not enter it.
    """
    digest = hashlib.sha256(json.dumps(list(labels)).encode())
    for part in parts:
        digest.update(json.dumps(part.x.shape).encode())
        # In slices: an array that is not contiguous is not copied whole.
        for start in range(0, len(part), 4096):
            digest.update(np.ascontiguousarray(part.x[start : start + 4096]))
        digest.update(np.ascontiguousarray(part.y, "<i8"))
    return digest.hexdigest()[:16]
