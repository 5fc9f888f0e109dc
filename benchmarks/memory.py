"""The memory of a training: images on the disk and in memory, at two sizes.

python benchmarks/memory.py [--images 50000 500000] [--scratch FOLDER]

Writes synthetic data sets of 32x32 images as tensorflow-datasets would (about 2.5 kB an
image, 1.4 GB for both sizes), trains the network `linear` for one epoch on each, in a
process of its own, and reports the largest resident set of the process.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import write

CLASSES, HELD, PER_SHARD = 10, 2_000, 5_000
POOL = 500  # different images; the others are their copies, which cost as much
TRAIN = """
import sys, kerascnn
data = kerascnn.load_data(sys.argv[1], stream=sys.argv[2] == "streamed",
                          validation=int(sys.argv[4]))
kerascnn.train("linear", data, epochs=1, batch_size=256, precision="float32",
               folder=sys.argv[3], progress=False)
"""
NOTHING = "import kerascnn, keras, tensorflow, tensorflow_datasets; kerascnn.train"


def prepare(folder: Path, number: int) -> int:
    """Write a data set of `number` training images; returns its bytes."""
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from PIL import Image

    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=CLASSES),
        }
    )
    rng = np.random.default_rng(0)
    pool = []
    for i in range(POOL):
        image = rng.integers(60, 130, (32, 32, 3)) + 12 * (i % CLASSES)
        file = io.BytesIO()
        Image.fromarray(image.astype(np.uint8)).save(file, "PNG")
        feature = {
            "image": tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[file.getvalue()])
            ),
            "label": tf.train.Feature(
                int64_list=tf.train.Int64List(value=[i % CLASSES])
            ),
        }
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        pool.append(example.SerializeToString())
    infos, total = [], 0
    for split, count in (("train", number), ("test", HELD)):
        template = tfds.core.ShardedFileTemplate(
            dataset_name=folder.parent.name,
            data_dir=folder,
            split=split,
            filetype_suffix="tfrecord",
        )
        lengths = [
            min(PER_SHARD, count - start) for start in range(0, count, PER_SHARD)
        ]
        paths = sorted(template.sharded_filepaths(len(lengths)))
        for path, length in zip(paths, lengths, strict=True):
            with tf.io.TFRecordWriter(str(path)) as writer:
                for i in range(length):
                    writer.write(pool[i % POOL])
        size = sum(os.path.getsize(path) for path in paths)
        total += size
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=size,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )
    return total


def measure(code: str, *arguments) -> dict:
    """Run Python; return seconds and the largest resident set, in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=None if os.environ.get("DEBUG") else subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(
            f"{arguments} ended with exit code {process.returncode}; DEBUG=1 shows why"
        )
    return {
        "seconds": time.perf_counter() - start,
        "CPU seconds": used.ru_utime + used.ru_stime,
        "peak MB": used.ru_maxrss / 1024,
    }


def main() -> None:
    """Write the data sets, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--scratch", type=Path, default=None)
    arguments = parser.parse_args()
    imports = measure(NOTHING)
    found = [{"images": 0, "kind": "imports alone", "bytes": 0, **imports}]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for number in arguments.images:
            folder = Path(scratch) / f"synthetic{number}" / "1.0.0"
            size = prepare(folder, number)
            for kind in ("streamed", "in memory"):
                run = Path(scratch) / f"run-{number}-{kind.replace(' ', '-')}"
                used = measure(TRAIN, folder, kind, run, HELD)
                found.append({"images": number, "kind": kind, "bytes": size, **used})
                print(found[-1], flush=True)
    rows = [
        {
            "training images": f"{f['images']:,}" if f["images"] else "-",
            "read": f["kind"],
            "pixels, MB": f"{f['images'] * 3072 / 2**20:,.0f}" if f["images"] else "-",
            "peak MB": f"{f['peak MB']:,.0f}",
            "over imports, MB": f"{f['peak MB'] - imports['peak MB']:,.0f}",
            "CPU seconds": f"{f['CPU seconds']:,.0f}",
        }
        for f in found
    ]
    write(
        "memory",
        "Memory of a training",
        [("One epoch of `linear`, images of 32x32x3", rows)],
        {"measured": found},
    )


if __name__ == "__main__":
    main()
