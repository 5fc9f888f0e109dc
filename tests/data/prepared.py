"""Small data sets as tensorflow-datasets writes them, for the tests of streaming."""

import io

import numpy as np
from PIL import Image


def encoded(image) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
        file, "PNG"
    )
    return file.getvalue()


def write(folder, splits, labels=("no", "yes"), shape=None, per_shard=7):
    """Write splits, {name: [(image, class), …]}, as one version of a data set.

    Args:
        folder: …/NAME/1.0.0.
        splits: uint8 images (height, width, channels) with their classes.
        labels: names of the classes.
        shape: what features.json says of the images; None for that of the first.
        per_shard: records a shard.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    first = next(iter(splits.values()))[0][0]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape or first.shape),
            "label": tfds.features.ClassLabel(names=list(labels)),
        }
    )
    name = folder.parent.name
    infos = []
    for split, examples in splits.items():
        template = tfds.core.ShardedFileTemplate(
            dataset_name=name, data_dir=folder, split=split, filetype_suffix="tfrecord"
        )
        parts = [
            examples[i : i + per_shard] for i in range(0, len(examples), per_shard)
        ]
        paths = sorted(template.sharded_filepaths(len(parts)))
        for path, part in zip(paths, parts, strict=True):
            with tf.io.TFRecordWriter(str(path)) as writer:
                for image, label in part:
                    encoding = features.encode_example(
                        {"image": image, "label": int(label)}
                    )
                    writer.write(features.serialize_example(encoding))
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(part) for part in parts],
                num_bytes=sum(path.stat().length for path in paths),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )
    return folder


def bands(number, seed=0, shape=(12, 12, 3), classes=3):
    """Images in which the height of a bright band tells the class."""
    rng = np.random.default_rng(seed)
    band = np.arange(shape[0]) * classes // shape[0]
    found = []
    for i in range(number):
        level = np.where(band == i % classes, 200, 60)[:, None, None]
        image = np.clip(rng.normal(level, 30, shape), 0, 255).astype(np.uint8)
        found.append((image, i % classes))
    return found
