"""Built-in images: ten classes of shapes that differ in nothing but their geometry.

Every shape has the same area, the same range of places, sizes, turns and colours, is
lighter or darker than its background equally often, and lies among the same clutter.
So the mean colour, the contrast and the histogram of an image say next to nothing
about its class, nor does any one pixel: a network has to look at arrangements.

The pixels are made of additions, multiplications, divisions and square roots, which
IEEE 754 rounds in one way only, so that a seed gives the same images everywhere.
"""

import functools
import math

import numpy as np

# Polygons in units of their own, y downwards; each is moved to its centroid and
# scaled to the area 1 by _frame.
POLYGONS = {
    "arrow": (
        (0.0, -1.0), (0.8, -0.1), (0.32, -0.1), (0.32, 1.0),
        (-0.32, 1.0), (-0.32, -0.1), (-0.8, -0.1),
    ),
    "cross": (
        (-0.3, -1.0), (0.3, -1.0), (0.3, -0.3), (1.0, -0.3), (1.0, 0.3), (0.3, 0.3),
        (0.3, 1.0), (-0.3, 1.0), (-0.3, 0.3), (-1.0, 0.3), (-1.0, -0.3), (-0.3, -0.3),
    ),
    "hourglass": (
        (-0.85, -1.0), (0.85, -1.0), (0.2, 0.0), (0.85, 1.0), (-0.85, 1.0), (-0.2, 0.0),
    ),
    "square": ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)),
    "star": (
        (0.0, -1.0), (0.2645, -0.3641), (0.9511, -0.3090), (0.4280, 0.1391),
        (0.5878, 0.8090), (0.0, 0.45), (-0.5878, 0.8090), (-0.4280, 0.1391),
        (-0.9511, -0.3090), (-0.2645, -0.3641),
    ),
    "triangle": ((0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)),
}  # fmt: skip

LABELS = ("arrow", "circle", "crescent", "cross", "heart")
LABELS += ("hourglass", "ring", "square", "star", "triangle")


def _polygon(x, y, corners):
    """Signed distance to a polygon, negative inside."""
    nearest, inside = None, False
    previous_x, previous_y = corners[-1]
    for corner_x, corner_y in corners:
        edge_x, edge_y = previous_x - corner_x, previous_y - corner_y
        from_x, from_y = x - corner_x, y - corner_y
        along = (from_x * edge_x + from_y * edge_y) / (edge_x**2 + edge_y**2)
        along = np.minimum(np.maximum(along, 0), 1)
        square = (from_x - edge_x * along) ** 2 + (from_y - edge_y * along) ** 2
        nearest = square if nearest is None else np.minimum(nearest, square)
        if edge_y:  # does a ray to the right of the point cross this edge?
            level = (y >= corner_y) != (y >= previous_y)
            inside = inside ^ (level & (from_x < edge_x / edge_y * from_y))
        previous_x, previous_y = corner_x, corner_y
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


def _disc(x, y, radius, centre_x=0.0, centre_y=0.0):
    return np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2) - radius


def _distance(label, x, y):
    """Signed distance to the shape in its own units."""
    match label:
        case "circle":
            return _disc(x, y, 1.0)
        case "ring":
            return np.abs(_disc(x, y, 0.8)) - 0.25
        case "crescent":
            return np.maximum(_disc(x, y, 1.0), -_disc(x, y, 0.75, 0.6, -0.1))
        case "heart":  # two discs over a corner whose sides touch them
            corner = ((-0.92, -0.12), (0.0, -0.4), (0.92, -0.12), (0.0, 1.05))
            left, right = (_disc(x, y, 0.55, at, -0.45) for at in (-0.48, 0.48))
            return np.minimum(_polygon(x, y, corner), np.minimum(left, right))
    return _polygon(x, y, POLYGONS[label])


@functools.cache
def _frame(label):
    """Centroid and square root of the area of a shape, in its own units."""
    side, reach = 400, 1.25
    cell = 2 * reach / side
    axis = (np.arange(side) + 0.5) * cell - reach
    rows, columns = np.nonzero(_distance(label, axis, axis[:, None]) < 0)
    # Sums of integers are exact on every machine.
    middle_x = (int(columns.sum()) / len(columns) + 0.5) * cell - reach
    middle_y = (int(rows.sum()) / len(rows) + 0.5) * cell - reach
    return middle_x, middle_y, math.sqrt(len(rows)) * cell


def _framed(label, x, y):
    """Signed distance to a shape of area 1 whose centroid is at 0, 0."""
    middle_x, middle_y, size = map(np.float32, _frame(label))
    return _distance(label, x * size + middle_x, y * size + middle_y) / size


def generate(number, *, seed=0, image_size=(32, 32)):
    """Draw images of shapes, as many of each class as of any other.

    Args:
        number: of images; every class has a tenth, give or take one.
        seed: of everything random; an integer or a sequence of them.
        image_size: (height, width) in pixels; the drawing is scaled along.

    Returns:
        x uint8 (number, height, width, 3) and y int64 (number,), in random order;
        `LABELS[y]` are their names.
    """
    rng = np.random.default_rng(seed)
    height, width = image_size
    x = np.empty((number, height, width, 3), np.uint8)
    y = rng.permutation(np.arange(number) % len(LABELS)).astype(np.int64)
    for start in range(0, number, 250):  # what is worked on stays in the cache
        part = slice(start, start + 250)
        x[part] = _draw(y[part], height, width, rng).transpose(0, 2, 3, 1)
    return x, y


def _uniform(rng, low, high, *shape):
    return rng.uniform(low, high, shape).astype(np.float32)


def _colours(rng, number):
    """Draw colours (3, number, 3) of the background, the shape and the clutter.

    Red, green and blue of the shape each keep a distance from the background's, above
    or below: a light shape, a dark one, or one of equal brightness and another hue.
    """
    background = _uniform(rng, 0.1, 0.9, number, 3)
    contrast = _uniform(rng, 0.25, 0.5, number, 3)
    above = rng.random((number, 3)) < 0.5
    above &= background + contrast <= 1
    above |= background - contrast < 0
    shape = np.where(above, background + contrast, background - contrast)
    return np.stack([background, shape, _uniform(rng, 0.1, 0.9, number, 3)])


def _draw(labels, height, width, rng):
    """Draw one image for each label: uint8 (number, 3, height, width)."""
    number = len(labels)
    unit = np.float32(min(height, width) / 32)  # lengths below are pixels of 32x32
    pixel_y = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - height / 2) / unit
    pixel_x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / unit
    background, shape, clutter = _colours(rng, number)[..., None, None]

    def each(low, high):
        return _uniform(rng, low, high, number, 1, 1)

    # The background is a colour that slopes, with two dots of clutter upon it.
    slope = each(-0.006, 0.006) * pixel_x + each(-0.006, 0.006) * pixel_y
    image = background + slope[:, None]  # (number, 3, height, width)
    for _ in range(2):
        dot = _disc(pixel_x - each(-16, 16), pixel_y - each(-16, 16), each(0.8, 2.0))
        _paint(image, clutter, dot * unit)

    side = each(9.0, 11.0)  # of a square of the shape's area
    across, down = pixel_x - each(-5.5, 5.5), pixel_y - each(-5.5, 5.5)
    half = each(-0.2, 0.2)  # tangent of half the turn: at most 23 degrees
    cosine = (1 - half * half) / (1 + half * half)
    sine = 2 * half / (1 + half * half)
    stretch = each(0.9, 1.11)  # as much wider as it is lower: the area stays
    own_x = (cosine * across + sine * down) / (side * stretch)
    own_y = (cosine * down - sine * across) * (stretch / side)
    distance = np.empty((number, height, width), np.float32)
    for label, name in enumerate(LABELS):
        chosen = np.flatnonzero(labels == label)
        distance[chosen] = _framed(name, own_x[chosen], own_y[chosen])
    _paint(image, shape, distance * (side * unit))

    image *= 255
    for sign in (1, -1):  # the sum is triangular, 5 grey levels of deviation
        noise = rng.integers(0, 13, image.shape, np.uint8)
        image += np.float32(sign) * noise
    return np.clip(image + np.float32(0.5), 0, 255).astype(np.uint8)


def _paint(image, colour, distance):
    """Paint a colour where the distance, in pixels, is negative; smooth edges."""
    cover = np.clip(np.float32(0.5) - distance, 0, 1)[:, None]
    image += (colour - image) * cover
