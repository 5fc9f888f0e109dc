"""Random changes of training images: warp, mirror, shift, shade, cut out."""

from dataclasses import dataclass

import numpy as np

PADDINGS = ("reflect", "zeros")
GREY = 128  # of the background that a warped image leaves, and of a cutout

# Pillow's modes by the number of channels: in CMYK the four are resampled alike, in
# RGBA the last one would weigh the others.
MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True)
class Augmentation:
    """Change a batch of training images at random.

    The order is affine, flip, crop, color, cutout. Each image draws its own numbers.
    Only `affine` resamples, the others move or change whole pixels.

    Attributes:
        flip: mirror left and right, each image with probability one half.
        crop: pad every side by so many pixels, then cut a window of the original
            size at a random place.
        crop_padding: what the border is filled with: "reflect" (the image mirrored
            about its edge pixels, which are not repeated) or "zeros" (black, as in
            He et al. 2015, arXiv 1512.03385, section 4.2).
        cutout: side in pixels of a square of mid-grey (128) around a random pixel; it
            may hang over the border (arXiv 1708.04552, section 3.2).
        affine: strength s of a random warp about the middle, 0 (none) to below 1.
            Width and height are stretched by factors from U(1 - s, 1 + s); then, with
            equal chances, columns are sheared, rows are, or the image is turned, by a
            tangent, or an angle in radians, from U(-s, s). What comes in is mid-grey;
            bilinear. Graham's networks take s = 0.2 (arXiv 1412.6071).
        color: grey levels c of a random shade. To each channel are added an offset
            from N(0, c²) and slopes from N(0, (0.08 c)²) for each pixel of distance
            from the middle; sums beyond 0…255 are cut off. Pixels within 2 levels of
            mid-grey are background and stay. Graham's later networks take c = 25.

    Raises ValueError: a negative number of pixels, an unknown padding, a strength out
    of its range.
    """

    flip: bool = False
    crop: int = 0
    crop_padding: str = "reflect"
    cutout: int = 0
    affine: float = 0.0
    color: float = 0.0

    def __post_init__(self):
        def whole(pixels):
            integer = isinstance(pixels, int) and not isinstance(pixels, bool)
            return integer and pixels >= 0

        for name, right, allowed in (
            ("crop", whole(self.crop), "a whole number of pixels, 0 for none"),
            ("cutout", whole(self.cutout), "a whole number of pixels, 0 for none"),
            ("crop_padding", self.crop_padding in PADDINGS, "'reflect' or 'zeros'"),
            ("affine", 0 <= self.affine < 1, "from 0 to below 1"),
            ("color", 0 <= self.color < float("inf"), "0 (none) or more grey levels"),
        ):
            if not right:
                value = getattr(self, name)
                raise ValueError(f"{name} must be {allowed}; received {value!r}")

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return any((self.flip, self.crop, self.cutout, self.affine, self.color))

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return changed copies of images, uint8 (N, height, width, channels).

        Raises ValueError: not uint8 images, or reflection by more pixels than the image
        has.
        """
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(
                "augmentation takes uint8 images (N, height, width, channels); "
                f"received {images.dtype} {images.shape}"
            )
        least = min(images.shape[1:3])
        if self.crop >= least and self.crop_padding == "reflect":
            raise ValueError(
                f"reflection gives a border of {least - 1} pixels at most to images of "
                f"{images.shape[1]}x{images.shape[2]}; received crop={self.crop}"
            )
        number = len(images)
        if self.affine:
            images = _warp(images, self._matrices(number, rng))
        result = self._move(images, rng)
        if self.color:
            self._shade(result, rng)
        if self.cutout:
            self._cut(result, rng)
        return result

    def _matrices(self, number, rng):
        """Draw maps from places in the image to places in the warped one: (N, 2, 2).

        A place is (x, y), counted from the middle.
        """
        stretch = rng.uniform(1 - self.affine, 1 + self.affine, (number, 2))
        kind = rng.integers(0, 3, number)
        amount = rng.uniform(-self.affine, self.affine, number)
        matrices = np.tile(np.eye(2), (number, 1, 1))
        matrices[:, 0, 1] = np.where(kind == 0, amount, 0)
        matrices[:, 1, 0] = np.where(kind == 1, amount, 0)
        cosine, sine = np.cos(amount), np.sin(amount)
        turns = np.stack([cosine, -sine, sine, cosine], axis=-1).reshape(-1, 2, 2)
        matrices[kind == 2] = turns[kind == 2]
        return matrices * stretch[:, None, :]  # stretched first

    def _shade(self, images, rng):
        number, height, width, channels = images.shape
        sizes = np.array([1, 0.08, 0.08]) * self.color  # of offset and slopes
        drawn = rng.normal(size=(3, number, channels)) * sizes[:, None, None]
        offset, across, down = drawn.astype(np.float32)[:, :, None, None]
        x = np.arange(width, dtype=np.float32)[:, None] - (width - 1) / 2
        y = np.arange(height, dtype=np.float32)[:, None, None] - (height - 1) / 2
        for first in range(0, number, 32):
            part = slice(first, first + 32)
            image = images[part]
            shaded = image + (offset[part] + across[part] * x) + down[part] * y
            np.clip(shaded + np.float32(0.5), 0, 255, out=shaded)
            # Numbers below 126 wrap around to large ones.
            background = (image - np.uint8(GREY - 2) <= 4).all(axis=-1, keepdims=True)
            images[part] = np.where(background, image, shaded.astype(np.uint8))

    def _move(self, images, rng):
        """Mirror and shift: a copy, each image a window of one with a border."""
        number, height, width, channels = images.shape
        mirrored = rng.random(number) < 0.5 if self.flip else [False] * number
        starts = rng.integers(0, 2 * self.crop + 1, (2, number)).tolist()
        # A pixel as one item of so many bytes is copied faster than as so many items.
        kind = f"V{channels}"
        pixels = np.ascontiguousarray(images).view(kind)[..., 0]
        edge = (self.crop, self.crop)
        mode = "constant" if self.crop_padding == "zeros" else "reflect"
        padded = np.pad(pixels, ((0, 0), edge, edge), mode) if self.crop else pixels
        result = np.empty(images.shape, np.uint8)
        drawn = zip(padded, result.view(kind)[..., 0], mirrored, *starts, strict=True)
        for image, copy, mirror, row, column in drawn:
            seen = image[row : row + height]
            copy[...] = (seen[:, ::-1] if mirror else seen)[:, column : column + width]
        return result

    def _cut(self, images, rng):
        number, height, width, _ = images.shape
        corners = rng.integers(0, (height, width), (number, 2)) - self.cutout // 2
        # A slice cannot start before 0; past the far side it ends by itself.
        starts, ends = np.maximum(corners, 0), np.maximum(corners + self.cutout, 0)
        places = zip(images, starts.tolist(), ends.tolist(), strict=True)
        for image, (top, left), (bottom, right) in places:
            image[top:bottom, left:right] = GREY


def _warp(images, matrices):
    """Map each image by its matrix about its middle: uint8 of the same shape.

    Pillow takes half the time of the same arithmetic on whole batches in NumPy.
    """
    from PIL import Image

    height, width, channels = images.shape[1:]
    mode = MODES.get(channels)
    if mode is None:
        planes = [_warp(images[..., [c]], matrices) for c in range(channels)]
        return np.concatenate(planes, axis=-1)
    # Pillow asks where each pixel of the result comes from.
    back = np.linalg.inv(matrices)
    middle = np.array([width, height]) / 2  # pixel (0, 0) has its middle at 0.5, 0.5
    shift = middle - back @ middle
    rows = np.concatenate([back, shift[:, :, None]], axis=2).reshape(-1, 6).tolist()
    result = np.empty(images.shape, np.uint8)
    images = np.ascontiguousarray(images)
    for image, row, warped in zip(images, rows, result, strict=True):
        picture = Image.frombuffer(mode, (width, height), image, "raw", mode, 0, 1)
        picture = picture.transform(
            (width, height),
            Image.Transform.AFFINE,
            row,
            Image.Resampling.BILINEAR,
            fillcolor=(GREY,) * channels if channels > 1 else GREY,
        )
        warped[:] = np.asarray(picture).reshape(warped.shape)
    return result
