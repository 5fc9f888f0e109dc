"""Inference beside the peers: images a second, and the time of a single image.

    python benchmarks/inference.py [--network lecture_cnn] [--batch 128]

The same network answers uint8 images in each runtime, from memory to probabilities.
Then `model.predict` shows how the cost grows with the size of the images, the size of
the batch and the number of images. Runtimes are extras (`kerascnn[litert]`, …); what
is not here is named and left out.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Contender, median_rate, take_turns, write
from matplotlib.figure import Figure

# Name, kind of worker.
CONTENDERS = {
    "model.predict": "predict",
    "kerascnn.predict": "kerascnn",
    "model(image)": "call",
    "SavedModel": "savedmodel",
    "LiteRT": "litert",
    "ONNX Runtime": "onnx",
    "OpenVINO": "openvino",
    "PyTorch": "torch",
}
FORMATS = ("savedmodel", "litert", "onnx", "openvino")
REFERENCE = "model.predict"
SIZES, BATCHES, NUMBERS = (32, 64, 128), (1, 8, 64, 512), (512, 2048, 8192)


def publish(network: str, folder: Path) -> dict[str, str]:
    """Write the network in every format; return which could not be, and why."""
    import zoo
    from kerascnn.serving import export

    model = zoo.build(network)
    model.save(folder / "model.keras")
    missing = {}
    for format in FORMATS:
        try:
            export(model, folder / format, format=format)
        except ImportError as error:
            missing[format] = str(error)
    return missing


def growth(network: str, rounds: int) -> dict[str, list[dict]]:
    """Measure `model.predict` against image size, batch size and number of images."""
    import zoo

    rng = np.random.default_rng(0)

    def seconds(model, size, batch, count):
        x = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        model.predict(x[:batch], batch_size=batch, verbose=0)  # builds the graph
        taken = []
        for _ in range(rounds):
            start = time.perf_counter()
            model.predict(x, batch_size=batch, verbose=0)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def row(first, value, count, taken, macs):
        per_image = taken / count
        return {
            first: value,
            "images": count,
            "seconds": f"{taken:.3g}",
            "ms an image": f"{1000 * per_image:.3g}",
            "MACs/s": f"{macs / per_image / 1e9:.3g} billion",
        }

    from kerascnn.summary import summarize

    tables: dict[str, list[dict]] = {"image size": [], "batch": [], "images": []}
    for size in SIZES:
        model = zoo.build(network, (size, size, 3))
        taken = seconds(model, size, 128, 256)
        macs = summarize(model).macs
        tables["image size"].append(row("pixels", f"{size}x{size}", 256, taken, macs))
    model = zoo.build(network)
    macs = summarize(model).macs
    for batch in BATCHES:
        taken = seconds(model, 32, batch, 1024)
        tables["batch"].append(row("batch", batch, 1024, taken, macs))
    for count in NUMBERS:
        taken = seconds(model, 32, 128, count)
        tables["images"].append(row("batch", 128, count, taken, macs))
    return tables


def picture(rates: dict[str, float], singles: dict[str, float]) -> Figure:
    """Draw images a second and the time of a single image."""
    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(list(rates), list(rates.values()), color="#0072B2")
    left.set_xlabel("images a second")
    left.invert_yaxis()
    right.barh(list(singles), [1000 * s for s in singles.values()], color="#E69F00")
    right.set_xscale("log")  # they differ by a factor of hundreds
    right.set_xlabel("ms for a single image, log scale")
    figure.suptitle("Inference, the same network in each runtime")
    figure.tight_layout()
    return figure


def main() -> None:
    """Measure, write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="lecture_cnn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="inference", help="of the result's files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        missing = publish(options.network, Path(scratch))
        arguments = [options.network, scratch, str(options.batch)]
        found, absent = take_turns(
            [
                Contender(name, ["inference_worker.py", kind, *arguments])
                for name, kind in CONTENDERS.items()
                if kind not in missing
            ],
            options.rounds,
        )
    absent |= {name: missing[k] for name, k in CONTENDERS.items() if k in missing}
    rates = {name: median_rate(rows) for name, rows in found.items()}
    singles = {
        name: statistics.median(r["single"] for r in rows)
        for name, rows in found.items()
    }
    table = [
        {
            "runtime": name,
            "images/s": f"{rate:,.0f}",
            f"beside {REFERENCE}": f"{rate / rates[REFERENCE]:.2f}",
            "single image, ms": f"{1000 * singles[name]:.2f}",
        }
        for name, rate in sorted(rates.items(), key=lambda pair: -pair[1])
    ]
    tables = growth(options.network, options.rounds)
    titled = [(f"model.predict, growing {k}", rows) for k, rows in tables.items()]
    write(
        options.name,
        f"Inference of {options.network}",
        [(f"Runtimes, batches of {options.batch}", table), *titled],
        {"rates": rates, "single": singles, "absent": absent, "growth": tables},
        lambda: picture(rates, singles),
    )


if __name__ == "__main__":
    main()
