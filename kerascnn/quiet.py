"""Silence for what TensorFlow tells of its start."""

import contextlib
import os
import sys


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
