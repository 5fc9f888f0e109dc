"""An unpickler that can build arrays of bytes and nothing else.

Unpickling calls whatever a pickle names. Here a pickle may name what CIFAR-10's own
batches name, and gets a harmless stand-in for each.
"""

import io
import pickle

import numpy as np


class _Dtype:
    """Records what a pickle says of the type of an array."""

    def __init__(self, code="", *_):
        self.code = code

    def __setstate__(self, state):
        """Accept the byte order and the layout; one byte has neither."""


class Array:
    """Records the shape and the bytes of a pickled array."""

    def __init__(self, *_):
        self.shape, self.content, self.code, self.fortran = (), b"", "", False

    def __setstate__(self, state):
        _, self.shape, dtype, self.fortran, self.content = state
        self.code = dtype.code if isinstance(dtype, _Dtype) else ""

    def array(self):
        """Return uint8 of the recorded shape.

        Raises:
            ValueError: other types than bytes, or not as many as the shape says.
        """
        code = self.code.decode() if isinstance(self.code, bytes) else self.code
        if code not in ("u1", "|u1") or not isinstance(self.content, bytes):
            raise ValueError(f"an array of bytes was expected, received {code!r}")
        order = "F" if self.fortran else "C"
        return np.frombuffer(self.content, np.uint8).reshape(self.shape, order=order)


# What CIFAR-10's pickles name, and a harmless stand-in for each: NumPy itself is never
# called with what a pickle says. NumPy 2 calls its module numpy._core.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle wants to call {module}.{name}, which CIFAR-10 has no use "
                "for; it was not called, and the archive is refused"
            ) from None


def loads(content: bytes):
    """Unpickle numbers, text, bytes, lists, dictionaries and arrays, nothing else.

    Args:
        content: a pickle; the text of one that Python 2 wrote comes out as bytes.

    Returns:
        The object; arrays as records with a method `array()`.

    Raises:
        pickle.UnpicklingError: the pickle is damaged, or names any other function or
            class; nothing of it was called.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise pickle.UnpicklingError(f"the pickle is damaged: {error}") from error
