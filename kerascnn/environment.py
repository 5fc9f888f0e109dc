"""What surrounds the package: which extras are installed, what TensorFlow prints."""

import contextlib
import importlib.util
import os
import sys


def first_missing(packages) -> str | None:
    """Return the first package that is not installed; imports none of them."""
    for package in packages:
        try:
            found = importlib.util.find_spec(package)
        except ValueError:  # it is marked as missing
            found = None
        if found is None:
            return package
    return None


@contextlib.contextmanager
def no_stderr():
    """Close standard error for a while, for C++ too.

    TF_CPP_MIN_LOG_LEVEL does not reach the lines that are written before TensorFlow
    has read it.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
