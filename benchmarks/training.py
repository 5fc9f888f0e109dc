"""Training throughput beside the peers: images a second, as ratios within one run.

    python benchmarks/training.py [--networks lecture_cnn dense_mlp] [--batches 128]

Every contender trains the same network by Adam on the same random images of 32x32
pixels, from memory, with shuffling, loss and accuracy. This package's routine also
mirrors and shifts each image; the others do not. PyTorch is an optional install; what
is not here is named and left out.
"""

import argparse

import numpy as np
from common import Contender, machine, median_rate, take_turns, write
from matplotlib.figure import Figure

# With oneDNN for all, as `import kerascnn` asks for it: it is off without AVX-512.
TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
JAX = {"KERAS_BACKEND": "jax"}
# Name, kind of worker, its options, environment.
CONTENDERS = (
    ("kerascnn", "train", ["float32"], TENSORFLOW),
    ("kerascnn, bfloat16", "train", ["mixed_bfloat16"], TENSORFLOW),
    ("kerascnn on JAX", "train", ["float32"], JAX),
    ("Keras fit", "fit", ["float32"], TENSORFLOW),
    ("Keras fit, bfloat16", "fit", ["mixed_bfloat16"], TENSORFLOW),
    ("Keras fit on JAX", "fit", ["float32"], JAX),
    ("PyTorch", "torch", [], {}),
    ("PyTorch, channels last", "torch", ["channels_last"], {}),
    ("PyTorch, bfloat16", "torch", ["channels_last", "bfloat16"], {}),
    ("PyTorch, compiled", "torch", ["compile"], {}),
)
REFERENCE = "Keras fit"  # the ratios are to this one
# Images of an epoch: about two seconds on two cores.
IMAGES = {
    "lecture_cnn": 5120,
    "dense_mlp": 1024,
    "resnet20": 512,
    "nin": 256,
    "airbench94": 512,
}


def measure(
    network: str,
    batch: int,
    rounds: int,
    only: list[str] | None = None,
    images: int | None = None,
) -> dict:
    """Let all contenders train one network; return rates and who was absent."""
    # Whole batches, and no fewer than two of them.
    count = max(2, -(-(images or IMAGES.get(network, 512)) // batch)) * batch
    contenders = [
        Contender(
            name,
            ["training_worker.py", kind, network, str(batch), str(count), *options],
            environment,
        )
        for name, kind, options, environment in CONTENDERS
        if not only or name in only
    ]
    found, absent = take_turns(contenders, rounds)
    return {
        "network": network,
        "batch": batch,
        "images": count,
        "rates": {name: median_rate(rows) for name, rows in found.items()},
        "rounds": found,
        "absent": absent,
    }


def table(result: dict) -> list[dict]:
    """Return a row for each contender, the fastest first."""
    rates = result["rates"]
    reference = rates.get(REFERENCE)
    rows = [
        {
            "training": name,
            "images/s": f"{rate:,.0f}",
            f"beside {REFERENCE}": f"{rate / reference:.2f}" if reference else "-",
        }
        for name, rate in sorted(rates.items(), key=lambda pair: -pair[1])
    ]
    return rows + [
        {"training": name, "images/s": "not here", f"beside {REFERENCE}": "-"}
        for name in result["absent"]
    ]


def picture(results: list[dict]) -> Figure:
    """Draw the ratios to plain `fit`, a group of bars for each network and batch."""
    names = list(dict.fromkeys(n for r in results for n in r["rates"]))
    beside = min(2, len(results))
    rows = -(-len(results) // beside)
    size = (5.5 * beside, 1.2 + 0.3 * len(names) * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, beside, squeeze=False, sharex=True, sharey=True)
    axes = grid.ravel()[: len(results)]
    for column in range(len(results) - rows * beside, 0):  # of the last row, unused
        grid[-1, column].remove()
        grid[-2, column].tick_params(labelbottom=True)
    for ax, result in zip(axes, results, strict=True):
        rates = result["rates"]
        ratios = [rates.get(n, np.nan) / rates.get(REFERENCE, np.nan) for n in names]
        own = [n.startswith("kerascnn") for n in names]
        colors = ["#0072B2" if mine else "#999999" for mine in own]
        ax.barh(names, ratios, color=colors)
        ax.axvline(1, color="black", linewidth=1)
        ax.set_title(f"{result['network']}, batches of {result['batch']}", fontsize=10)
    axes[0].invert_yaxis()  # of all, which share it
    figure.supxlabel(f"images a second, as a multiple of {REFERENCE}", fontsize=10)
    figure.suptitle("Training throughput")
    return figure


def main() -> None:
    """Measure, write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(IMAGES))
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, help="of an epoch; default: for 2 s")
    parser.add_argument("--only", nargs="+", help="names of contenders")
    parser.add_argument("--name", default="training", help="of the result's files")
    options = parser.parse_args()
    results = []
    for network in options.networks:
        for batch in options.batches:
            print(f"{network}, batches of {batch}")
            results.append(
                measure(network, batch, options.rounds, options.only, options.images)
            )
    write(
        options.name,
        "Training throughput",
        [
            (
                f"{r['network']}, batches of {r['batch']}, {r['images']:,} images an "
                "epoch",
                table(r),
            )
            for r in results
        ],
        {"results": results, "machine": machine()},
        lambda: picture(results),
    )


if __name__ == "__main__":
    main()
