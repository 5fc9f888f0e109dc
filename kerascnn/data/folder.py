"""A folder of images as a data set: one subfolder a class."""

import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kerascnn.data.dataset import Data, DataError, Images, assemble, choose, divide
from kerascnn.environment import progress_bar

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png")
SUFFIXES += (".tif", ".tiff", ".webp")
COMMON = (".jpeg", ".jpg", ".png")
# Names of the folders of the parts, in whatever case.
PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "val", "valid"),
}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's words for so many channels
MANY = 2_000  # from so many files on there is a progress bar


def read_image(file, image_size=(32, 32), channels=3) -> np.ndarray:
    """Read an image file as a network wants it.

    The image is turned upright (EXIF), and the largest window of the wanted aspect
    ratio is cut from its centre and resized, bicubic with antialiasing. Grey becomes
    RGB, transparency white, 16 bits a channel 8, an animation its first frame.

    Args:
        file: path or open binary file of an AVIF, BMP, GIF, JPEG, PNG, TIFF or WebP
            image.
        image_size: (height, width) in pixels.
        channels: 3 for RGB; 1 for grey (ITU-R BT.601), 4 for RGB and transparency,
            which then stays.

    Returns:
        uint8 (height, width, channels).

    Raises:
        ValueError: a number of channels that image files do not have.
        OSError: the file is missing, damaged or no image; some formats raise
            ValueError or SyntaxError instead.
        PIL.Image.DecompressionBombError: more pixels than Pillow takes (178,956,970).
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
    and validation that have one a class each. Images may lie deeper in a class's
    folder. Without test, a fifth of every class is held out as test images. What is
    passed over is told in the notes: files that are no images by their suffix, broken
    links, images beside the classes; hidden files and folders are ignored. `read_image`
    brings each to `image_size`; of more than 2,000 a bar shows the progress.

    Raises DataError, with their names, where there are no images, fewer than two
    classes, a class without images or in one part alone, or files that cannot be read;
    ValueError for more validation images than there are to hold out.
    """
    folder = Path(folder)
    parts, notes = _parts(folder)
    if "validation" in parts and validation:
        raise ValueError(
            f"{parts['validation']} has validation images: leave validation out, or 0 "
            f"to have none; received validation={validation!r}"
        )
    if validation == 0:
        parts.pop("validation", None)
    labels, files, others = _list(parts)
    listed = [Path(file) for part in files.values() for file, _ in part]
    suffixes = Counter(path.suffix.lower() for path in listed)
    if rare := [f"{n:,} {s}" for s, n in suffixes.items() if s not in COMMON]:
        notes.append(f"Among the images are {', '.join(rare)} files.")
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
    else:
        seen = {image.tobytes() for image in train.x}
        if same := sum(image.tobytes() in seen for image in test.x):
            notes.append(
                f"{same:,} of {len(test):,} test images are among the training images "
                "too: the test accuracy tells nothing of them."
            )
    size = "x".join(map(str, image_size))
    notes.append(f"Images are turned upright, cut to their centre, resized to {size}.")
    resolved = folder.resolve()
    return assemble(
        re.sub(r"[^\w.-]+", "-", resolved.name) or "folder",
        resolved.name or str(resolved),
        labels,
        train,
        test,
        validation=images.get("validation", validation),
        seed=seed,
        notes=notes,
    )


def _entries(folder):
    """Folders, other files, and broken links of a folder, by name; none is hidden."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None
    folders, files, broken = [], [], []
    for entry in entries:
        if entry.name.startswith((".", "__MACOSX")):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"the name {os.fsencode(entry.name)!r} in {folder} is no UTF-8: rename "
                "it"
            ) from None
        exists = os.path.exists(entry.path)  # False for a broken link, and for a loop
        kind = (folders if entry.is_dir() else files) if exists else broken
        kind.append(entry.name)
    return folders, files, broken


def _parts(folder):
    """The folder of each part, train first, and notes."""
    names, files, broken = _entries(folder)
    own = {
        part: [name for name in names if name.lower() in known]
        for part, known in PARTS.items()
    }
    parts, notes = {"train": folder}, []
    # A class may be called "train" too; then there are images in the folder itself.
    inside = _entries(folder / own["train"][0]) if own["train"] else ([], [], [])
    if inside[0] and not any(name.lower().endswith(SUFFIXES) for name in inside[1]):
        for found in own.values():
            if len(found) > 1:
                raise DataError(f"{folder} has both {' and '.join(found)}: leave one")
        parts = {part: folder / found[0] for part, found in own.items() if found}
        used = {path.name for path in parts.values()}
        if others := [name for name in names if name not in used]:
            notes.append(f"Folders passed over: {_some(others)}.")
    stray = [name for name in files if name.lower().endswith(SUFFIXES)]
    if stray := [*stray, *broken]:
        notes.append(f"Passed over, as it lies in no class's folder: {_some(stray)}.")
    return parts, notes


def _list(parts):
    """Names of the classes, files with classes of each part, files that are none."""
    labels, files, others = None, {}, []
    for part, root in parts.items():
        names = _entries(root)[0]
        if not names:
            raise DataError(f"{root} has no subfolders: put each class's images in one")
        labels = labels or names
        if set(labels) != set(names):
            absent = {parts["train"]: set(names) - set(labels)}
            absent[root] = set(labels) - set(names)
            raise DataError(
                f"{parts['train']} and {root} must have the same classes; "
                + " and ".join(
                    f"{place} lacks {_some(sorted(lacking))}"
                    for place, lacking in absent.items()
                    if lacking
                )
            )
        files[part], empty = [], []
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


def _images(folder, above=()):
    """Image files of a class, also in folders within, and the names of other files."""
    real = os.path.realpath(folder)
    if real in above:
        raise DataError(f"{folder} is a link that leads back to {real}: remove it")
    folders, files, others = _entries(folder)
    images = [os.path.join(folder, n) for n in files if n.lower().endswith(SUFFIXES)]
    others += [name for name in files if not name.lower().endswith(SUFFIXES)]
    for name in folders:
        deeper, rest = _images(os.path.join(folder, name), (*above, real))
        images += deeper
        others += [f"{name}/{other}" for other in rest]
    return images, others


def _some(names, most=3):
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _read(files, folder, image_size, progress):
    """Decode all files of all parts, several at a time; collect what fails."""
    from PIL import UnidentifiedImageError

    number = sum(len(listed) for listed in files.values())
    images, failed, done = {}, [], 0
    shown = progress and number > MANY
    with (
        ThreadPoolExecutor() as pool,
        progress_bar(str(folder), total=number, enabled=shown) as bar,
    ):
        for part, listed in files.items():
            x = np.empty((len(listed), *image_size, 3), np.uint8)

            def decode(index, x=x, listed=listed):
                try:
                    x[index] = read_image(listed[index][0], image_size)
                except UnidentifiedImageError:
                    return "no image of a known format"
                except Exception as error:  # decoders raise anything; all is reported
                    return str(error) or type(error).__name__
                return None

            reasons = pool.map(decode, range(len(listed)))
            for (file, _), reason in zip(listed, reasons, strict=True):
                if reason:
                    failed.append(f"{file} ({reason})")
                done += 1
                bar(done)
            images[part] = Images(x, np.array([label for _, label in listed]))
    if failed:
        raise DataError(
            f"{len(failed):,} of {number:,} images cannot be read: {_some(failed)}; "
            "repair or remove them"
        )
    return images
