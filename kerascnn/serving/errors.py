"""What can go wrong between a network and its served version."""


class ExportError(RuntimeError):
    """A version could not be written, or answers differently from its network."""
