"""Random changes of training images: mirror, shift, cut out."""

from dataclasses import dataclass

import numpy as np

PADDINGS = ("reflect", "zeros")


@dataclass(frozen=True)
class Augmentation:
    """Change a batch of training images at random; whole pixels, no resampling.

    The order is flip, crop, cutout. Each image draws its own numbers.

    Attributes:
        flip: mirror left and right, each image with probability one half.
        crop: pad every side by so many pixels, then cut a window of the original
            size at a random place: a shift by up to `crop` pixels on each axis.
        crop_padding: what the border is filled with: "reflect" (the image mirrored
            about its edge pixels, which are not repeated) or "zeros" (black, as in
            the CIFAR recipe of He et al. 2015, arXiv 1512.03385, section 4.2).
        cutout: side in pixels of a square of mid-grey (128) around a random pixel
            of the image; it may hang over the border (DeVries and Taylor 2017,
            arXiv 1708.04552, section 3.2). The paper cuts to zero in normalised
            images, which is about mid-grey in pixels.

    Raises:
        ValueError: a negative number of pixels, an unknown padding.
    """

    flip: bool = False
    crop: int = 0
    crop_padding: str = "reflect"
    cutout: int = 0

    def __post_init__(self):
        for name in ("crop", "cutout"):
            pixels = getattr(self, name)
            if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0:
                raise ValueError(
                    f"{name} must be a whole number of pixels, 0 for none; "
                    f"received {pixels!r}"
                )
        if self.crop_padding not in PADDINGS:
            raise ValueError(
                f"crop_padding must be {' or '.join(map(repr, PADDINGS))}; "
                f"received {self.crop_padding!r}"
            )

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self.flip or self.crop or self.cutout)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return changed copies of images.

        Args:
            images: uint8 (N, height, width, channels); left as they are.
            rng: where the random numbers come from; one state gives one result.

        Returns:
            uint8 (N, height, width, channels), a new array.

        Raises:
            ValueError: not uint8 images, or reflection by more pixels than the
                image has.
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
        mirrored = rng.random(number) < 0.5 if self.flip else np.zeros(number, bool)
        span = (2, number, 1)
        corners = rng.integers(0, 2 * self.crop + 1, span) if self.crop else None
        result = np.empty(images.shape, np.uint8)
        # A few images at a time: what is in between stays in the processor's cache.
        for first in range(0, number, 32):
            part = slice(first, first + 32)
            wide = self._widen(images[part], np.flatnonzero(mirrored[part]))
            if self.crop:
                result[part] = self._windows(
                    wide, result[part].shape, *corners[:, part]
                )
            else:
                result[part] = wide.view(np.uint8).reshape(result[part].shape)
        if self.cutout:
            self._cut(result, rng)
        return result

    def _widen(self, images, mirrored):
        """Mirror some images, pad columns of all: (N, height, wider), items of pixels.

        A pixel as one item of so many bytes is copied in half the time of so many
        items of one byte.
        """
        number, height, width, channels = images.shape
        border, end = self.crop, self.crop + width
        images = np.ascontiguousarray(images).view(f"V{channels}")[..., 0]
        wide = np.zeros((number, height, width + 2 * border), images.dtype)
        wide[:, :, border:end] = images
        wide[mirrored, :, border:end] = images[mirrored, :, ::-1]
        if border and self.crop_padding == "reflect":
            wide[:, :, :border] = wide[:, :, 2 * border : border : -1]
            wide[:, :, end:] = wide[:, :, end - 2 : end - 2 - border : -1]
        return wide

    def _windows(self, wide, shape, tops, lefts):
        """Cut a window out of each wide image: uint8 of the given shape.

        A row of a window is a run of bytes somewhere in the wide images, and a row of
        the border is a row of the image: one gather of runs makes all windows.
        """
        number, height, width, channels = shape
        rows = np.arange(height) + tops - self.crop  # (N, height)
        if self.crop_padding == "reflect":
            last = height - 1
            source = last - np.abs(last - np.abs(rows))
        else:
            source = np.clip(rows, 0, height - 1)
        start = (np.arange(number)[:, None] * height + source) * wide.shape[2] + lefts
        run = np.dtype(f"V{width * channels}")
        many = wide.nbytes - run.itemsize + 1
        runs = np.ndarray(many, run, wide.data.cast("B"), strides=1)
        windows = runs[start * channels].view(np.uint8).reshape(shape)
        if self.crop_padding == "zeros":
            windows[rows != source] = 0
        return windows

    def _cut(self, images, rng):
        number, height, width, _ = images.shape
        corners = rng.integers(0, (height, width), (number, 2)) - self.cutout // 2
        # A slice cannot start before 0; past the far side it ends by itself.
        starts, ends = np.maximum(corners, 0), np.maximum(corners + self.cutout, 0)
        places = zip(images, starts.tolist(), ends.tolist(), strict=True)
        for image, (top, left), (bottom, right) in places:
            image[top:bottom, left:right] = 128
