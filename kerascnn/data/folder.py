"""A folder of images as a data set: one subfolder a class."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kerascnn.data.progress import progress_bar
from kerascnn.data.split import assemble, choose, divide
from kerascnn.data.types import Data, DataError, Images

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
VALIDATION = ("validation", "val", "valid")
PARTS = ("train", "test", *VALIDATION)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's words for so many channels
MANY = 2_000  # from so many files on there is a progress bar


def read_image(file, image_size=(32, 32), channels=3) -> np.ndarray:
    """Read an image file as a network wants it.

    The image is turned upright (EXIF), and the largest window of the wanted aspect
    ratio is cut from its centre and resized, bicubic with antialiasing: proportions
    stay, the rims of a longer image go. Grey becomes RGB, transparency white, 16 bits
    a channel 8, and of an animation the first frame is read.

    Args:
        file: path or open binary file of a BMP, GIF, JPEG, PNG or WebP image.
        image_size: (height, width) in pixels.
        channels: 3 for RGB; 1 for grey (ITU-R BT.601), 4 for RGB and transparency,
            which then stays.

    Returns:
        uint8 (height, width, channels).

    Raises:
        ValueError: a number of channels that image files do not have.
        OSError: the file is missing, damaged or no image; some formats raise
            ValueError or SyntaxError instead.
        PIL.Image.DecompressionBombError: the image has so many pixels that it is
            taken for an attack (178,956,970 with Pillow's default).
    """
    from PIL import Image, ImageOps

    if channels not in MODES:
        raise ValueError(
            f"image files have 1, 3 or 4 channels, the network takes {channels}; "
            "give it arrays"
        )
    height, width = image_size
    with Image.open(file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits a pixel, 0…65,535
            grey = np.clip(np.asarray(image).astype(np.float32) / 257, 0, 255)
            image = Image.fromarray(np.rint(grey).astype(np.uint8))
        elif image.has_transparency_data and channels != 4:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        image = ImageOps.fit(
            image.convert(MODES[channels]), (width, height), Image.Resampling.BICUBIC
        )
        return np.asarray(image).reshape(height, width, channels)


def load_folder(
    folder, *, image_size=(32, 32), validation=None, seed=0, progress=True
) -> Data:
    """Read a folder of images into memory.

    The folder has one subfolder a class, or subfolders train and, if you like, test
    and validation that have one a class each. Without test, a fifth of every class is
    held out as test images. Files that are no images by their suffix are passed over
    and counted in the notes; hidden files and folders are ignored.

    Args:
        folder: its path.
        image_size: (height, width) to which every image is brought by `read_image`.
        validation: number of training images to hold out; None for the folder's own
            validation images, or else a tenth.
        seed: of what is held out.
        progress: whether to show a progress bar for more than 2,000 files.

    Returns:
        Data named after the folder; classes in the order of their names.

    Raises:
        DataError: there are no images, no classes, only one class, a class without
            images, a class of one part that another part lacks, or files that cannot
            be read; names them.
        ValueError: more validation images than there are to hold out.
    """
    folder = Path(folder)
    parts, notes = _parts(folder)
    own = next((part for part in VALIDATION if part in parts), None)
    if own and validation is not None:
        raise ValueError(
            f"{folder / own} has validation images: leave validation out; "
            f"received validation={validation!r}"
        )
    labels, files, others = _list(parts)
    if others:
        notes.append(f"Files passed over as no images: {_some(others)}.")
    images = _read(files, folder, image_size, progress)
    train, test = images["train"], images.get("test")
    if test is None:
        counts = np.bincount(train.y)
        if counts.min() < 2:
            label = labels[counts.argmin()]
            raise DataError(
                f"{parts['train'] / label} has one image: without a test folder a "
                "class needs two at least, one to train and one to test on"
            )
        # A fifth, rounded, but one at least.
        quotas = np.maximum(1, np.rint(counts / 5).astype(int))
        train, test = divide(train, choose(train.y, quotas, seed=seed))
        notes.append("Without a test folder, a fifth of every class is the test part.")
    resolved = folder.resolve()
    return assemble(
        re.sub(r"[^\w.-]+", "-", resolved.name) or "folder",
        resolved.name or str(resolved),
        labels,
        train,
        test,
        validation=images[own] if own else validation,
        seed=seed,
        notes=notes,
    )


def _subfolders(folder):
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None
    hidden = (".", "__MACOSX")
    return [e.name for e in entries if e.is_dir() and not e.name.startswith(hidden)]


def _parts(folder):
    """The folder of each part, train first, and notes."""
    names = _subfolders(folder)
    train = folder / "train"
    # A class may be called "train" too; then there are images in the folder itself.
    if "train" not in names or not _subfolders(train) or _images(train)[0]:
        return {"train": folder}, []
    if len(own := [name for name in names if name in VALIDATION]) > 1:
        raise DataError(f"{folder} has both {' and '.join(own)}: leave one of them")
    others = [name for name in names if name not in PARTS]
    notes = [f"Folders passed over: {_some(others)}."] if others else []
    return {part: folder / part for part in PARTS if part in names}, notes


def _list(parts):
    """Names of the classes, files with classes of each part, files that are none."""
    labels, files, others = None, {}, []
    for part, root in parts.items():
        names = _subfolders(root)
        if not names:
            raise DataError(f"{root} has no subfolders: put each class's images in one")
        labels = labels or names
        if unlike := sorted(set(labels) ^ set(names)):
            raise DataError(
                f"{parts['train']} and {root} must have the same classes; one of them "
                f"lacks {_some(unlike)}"
            )
        files[part] = []
        empty = []
        for label, name in enumerate(names):
            found, rest = _images(root / name)
            files[part] += [(file, label) for file in found]
            others += rest
            if not found:
                empty.append(str(root / name))
        if not files[part]:
            raise DataError(
                f"{root} has subfolders but no images in them: images end in "
                f"{', '.join(SUFFIXES)} and lie in {root}/CLASS/"
            )
        if empty:
            raise DataError(
                f"no images in {_some(empty)}: add some, or remove the empty class"
            )
    if len(labels) < 2:
        raise DataError(
            f"{parts['train']} has one class, {labels[0]!r}: a classifier needs two "
            "subfolders or more"
        )
    return tuple(labels), files, others


def _images(folder):
    """Image files of a class, by name, and the names of other files."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    visible = [e for e in entries if e.is_file() and not e.name.startswith(".")]
    images = [e.path for e in visible if e.name.lower().endswith(SUFFIXES)]
    return images, [e.name for e in visible if not e.name.lower().endswith(SUFFIXES)]


def _some(names, most=3):
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _read(files, folder, image_size, progress):
    """Decode all files of all parts, several at a time; collect what fails."""
    number = sum(len(listed) for listed in files.values())
    images, failed, done = {}, [], 0

    with (
        ThreadPoolExecutor() as pool,
        progress_bar(
            str(folder), total=number, enabled=progress and number > MANY
        ) as bar,
    ):
        for part, listed in files.items():
            x = np.empty((len(listed), *image_size, 3), np.uint8)

            def decode(index, x=x, listed=listed):
                file = listed[index][0]
                try:
                    x[index] = read_image(file, image_size)
                except Exception as error:  # decoders raise anything; all is reported
                    return file, error
                return None

            for failure in pool.map(decode, range(len(listed))):
                if failure:
                    failed.append(failure)
                done += 1
                bar(done)
            images[part] = Images(x, np.array([label for _, label in listed]))
    if failed:
        shown = [f"{file} ({_reason(error)})" for file, error in failed]
        raise DataError(
            f"{len(failed):,} of {number:,} images cannot be read: {_some(shown)}; "
            "repair or remove them"
        )
    return images


def _reason(error):
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image of a known format"
    return str(error) or type(error).__name__
