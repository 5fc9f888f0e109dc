"""How many batches a number of images makes."""


def steps(number: int, batch_size: int) -> int:
    """Return how many batches of `batch_size` make up `number` images.

    Args:
        number: of images.
        batch_size: images a batch; the last batch may have fewer.

    Raises:
        ValueError: a negative number of images, a batch of none.
    """
    if number < 0 or batch_size < 1:
        raise ValueError(
            "steps need 0 images or more and a batch size of 1 or more; "
            f"received {number} and {batch_size}"
        )
    return -(-number // batch_size)
