"""What can be exported, brought to one form: a model and, where known, its labels."""


def resolve(source):
    """Return the `keras.Model` that a source names, and its labels or None.

    Args:
        source: an object with a `model` and `labels`, as a run is; or what
            `kerascnn.training.open_network` opens: a `keras.Model`, the name of a
            network of the zoo, or the path of a run folder or of a .keras file.

    Raises:
        ValueError: nothing of that name exists, or a file cannot be read.
        FileNotFoundError: the path is not there, or not a run folder.
        TypeError: the source is something else.
    """
    if hasattr(source, "model") and hasattr(source, "labels"):
        return source.model, source.labels
    from kerascnn.training import open_network

    network = open_network(source)
    return network.model, network.labels
