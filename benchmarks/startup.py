"""What a command costs before it works: seconds and memory, beside bare imports.

python benchmarks/startup.py [--rounds 5]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write

COMMANDS = {
    "python": ["-c", "pass"],
    "import kerascnn": ["-c", "import kerascnn"],
    "kerascnn --help": ["-m", "kerascnn", "--help"],
    "kerascnn models": ["-m", "kerascnn", "models"],
    "kerascnn compare lecture_cnn vgg19": [
        "-m", "kerascnn", "compare", "lecture_cnn", "vgg19",
    ],
    "kerascnn data": ["-m", "kerascnn", "data"],
    "import keras": ["-c", "import keras"],
    "kerascnn summary lecture_cnn": ["-m", "kerascnn", "summary", "lecture_cnn"],
    "kerascnn predict lecture_cnn PHOTO": [
        "-m", "kerascnn", "predict", "lecture_cnn", "{photo}",
    ],
    "import torch": ["-c", "import torch"],
}  # fmt: skip

COLUMNS = ("seconds", "CPU seconds", "peak MB")


def measure(arguments: list[str]) -> tuple[int, float, float, float]:
    """Run Python; return exit code, seconds, CPU seconds and peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = used.ru_utime + used.ru_stime
    return process.returncode, seconds, cpu, used.ru_maxrss / 1024


def main() -> None:
    """Measure the commands in turns, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found: dict[str, list[tuple]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        photo = Path(scratch) / "photo.png"
        # An image of a handful of colours; what it shows does not matter here.
        from PIL import Image

        Image.radial_gradient("L").convert("RGB").save(photo)
        for number in range(rounds + 1):
            for name, arguments in COMMANDS.items():
                measured = measure([a.format(photo=photo) for a in arguments])
                if number and measured[0] == 0:
                    found.setdefault(name, []).append(measured)
            print(f"round {number} of {rounds}")
    medians = {
        name: {
            column: statistics.median(row[index] for row in rows)
            for index, column in enumerate(COLUMNS, start=1)
        }
        for name, rows in found.items()
    }
    rows = [
        {
            "command": name,
            "seconds": f"{m['seconds']:.2f}",
            "CPU seconds": f"{m['CPU seconds']:.2f}",
            "peak MB": f"{m['peak MB']:.0f}",
        }
        for name, m in medians.items()
    ]
    absent = [name for name in COMMANDS if name not in found]
    rows += [
        {"command": name, "seconds": "failed", "CPU seconds": "-", "peak MB": "-"}
        for name in absent
    ]
    write("startup", "Start of the commands", [("Medians", rows)], {"medians": medians})


if __name__ == "__main__":
    main()
