"""Time to accuracy on CIFAR-10: seconds until the validation images are mostly right.

    python benchmarks/accuracy.py [--seconds 1200] [--goals 60 70 75]
    python benchmarks/accuracy.py --recipes airbench94:default --goals 90 92 94
        --peers "airbench94 in PyTorch" --seconds 9000 --name accuracy_airbench
    python benchmarks/accuracy.py --runs runs/airbench94-cifar10-1 --goals 90 92 94

Each contender trains by its own recipe until it has reached all goals, its recipe ends
or the time is up; the clock runs while it trains, not while it is measured. The same
45,000 images train and the same 5,000 judge. The peers are the networks that most
beginners meet, with their published recipes; one whose library is not installed is
named and left out. With --runs finished trainings are read instead, whose seconds hold
the validation and the saving of each epoch too, and join those that the result has.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import HERE, RESULTS, write
from matplotlib.figure import Figure

OURS = ("lecture_cnn:quick", "lecture_cnn:short", "lecture_cnn:default")


def tensorflow_tutorial():
    """Build the CNN of TensorFlow's tutorial "Convolutional Neural Network (CNN)".

    tensorflow.org/tutorials/images/cnn: 122,570 parameters, Adam, batches of 32, ten
    epochs, pixels 0…1, no augmentation.
    """
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, keras.optimizers.Adam(), 32, 10


def keras_example():
    """Build the CNN of Keras' example cifar10_cnn.py, for years its first on CIFAR-10.

    keras-team/keras, examples/cifar10_cnn.py (release 2.3): 1,250,858 parameters,
    RMSprop of rate 0.0001, batches of 32. It mirrors and shifts images; here they stay
    as they are, which is quicker, and to its advantage as long as it does not overfit.
    """
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, keras.optimizers.RMSprop(1e-4), 32, 100


@dataclass
class Clock:
    """Writes a line an epoch, and says when to stop."""

    goal: float
    limit: float
    spent: float = 0.0

    def started(self) -> None:
        self.start = time.perf_counter()

    def told(self, epoch: int, accuracy: float) -> bool:
        row = {"epoch": epoch + 1, "seconds": self.spent, "accuracy": 100 * accuracy}
        print(json.dumps(row), flush=True)
        return row["accuracy"] >= self.goal or self.spent >= self.limit

    def run(self, epochs: int, train, measure) -> None:
        """Train epoch by epoch; `measure()`, off the clock, returns the accuracy."""
        for epoch in range(epochs):
            self.started()
            train()
            self.spent += time.perf_counter() - self.start
            if self.told(epoch, measure()):
                return


def train_ours(network: str, recipe: str, clock: Clock, seed: int) -> None:
    """Train a network of the zoo by a recipe of its card."""
    import tempfile

    import keras

    from kerascnn import load_data, train

    class Timed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            clock.started()

        def on_train_batch_end(self, step, logs=None):
            self.last = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            # The routine has validated by now: the clock stopped with the last batch.
            clock.spent += self.last - clock.start
            self.model.stop_training = clock.told(epoch, logs["val_accuracy"])

    with tempfile.TemporaryDirectory() as folder:
        train(
            network,
            load_data("cifar10"),
            recipe,
            seed=seed,
            folder=Path(folder) / "run",
            progress=False,
            callbacks=[Timed()],
        )


def train_keras(build, clock: Clock, seed: int) -> None:
    """Train a peer by `fit`, as its page does."""
    import keras

    from kerascnn import load_data

    data = load_data("cifar10")
    keras.utils.set_random_seed(seed)
    model, optimizer, batch, epochs = build()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = data.train.x.astype("float32"), data.train.y
    held = data.validation
    clock.run(
        epochs,
        lambda: model.fit(x, y, batch_size=batch, verbose=0),
        lambda: model.evaluate(held.x, held.y, verbose=0)[1],
    )


def train_pytorch(clock: Clock, seed: int) -> None:
    """Train the CNN of PyTorch's tutorial "Training a Classifier", as its page does.

    pytorch.org/tutorials/beginner/blitz/cifar10_tutorial: 62,006 parameters, SGD of
    rate 0.001 and momentum 0.9, batches of 4, two epochs, pixels -1…1, no augmentation.
    The page decodes and scales image by image; here they are one tensor, which is
    quicker.
    """
    import torch
    import torch._dynamo  # before TensorFlow: the LLVM of Triton, its part, aborts
    from torch import nn

    from kerascnn import load_data

    def tensors(images):
        x = torch.from_numpy(images.x).permute(0, 3, 1, 2) / 127.5 - 1
        return x.contiguous(), torch.from_numpy(images.y).long()

    data = load_data("cifar10")
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    loss = nn.CrossEntropyLoss()
    x, y = tensors(data.train)
    held_x, held_y = tensors(data.validation)

    def fit():
        for chosen in torch.randperm(len(x)).split(4):
            optimizer.zero_grad()
            loss(model(x[chosen]), y[chosen]).backward()
            optimizer.step()

    def measure():
        with torch.inference_mode():
            return (model(held_x).argmax(1) == held_y).float().mean().item()

    clock.run(2, fit, measure)


def train_airbench(clock: Clock, seed: int) -> None:
    """Train airbench94 as its author does, written anew."""
    import airbench_pytorch

    from kerascnn import load_data

    data = load_data("cifar10")
    train, held = data.train, data.validation
    epoch, measure, epochs = airbench_pytorch.prepare(train.x, train.y, seed)
    numbers = iter(range(epochs))
    clock.run(epochs, lambda: epoch(next(numbers)), lambda: measure(held.x, held.y))


BEGINNERS = {
    "TensorFlow's tutorial": partial(train_keras, tensorflow_tutorial),
    "Keras' example": partial(train_keras, keras_example),
    "PyTorch's tutorial": train_pytorch,
}
PEERS = BEGINNERS | {"airbench94 in PyTorch": train_airbench}


def run(name: str, goal: float, limit: float, seed: int) -> list[dict]:
    """Let a fresh process train; return its epochs, none where it is not installed."""
    process = subprocess.Popen(
        [
            sys.executable,
            str(HERE / "accuracy.py"),
            *("--contender", name, "--goals", str(goal)),
            *("--seconds", str(limit), "--seed", str(seed)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        # oneDNN for all, on processors without AVX-512 too, as kerascnn has it.
        env={"TF_ENABLE_ONEDNN_OPTS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    rows = []
    for line in process.stdout:
        if line.startswith("{"):
            row = json.loads(line)
            if "absent" in row:
                print(f"{name}: not here ({row['absent']})", flush=True)
            else:
                rows.append(row)
                print(f"{name}: {row}", flush=True)
    if process.wait():
        raise RuntimeError(f"{name} ended with exit code {process.returncode}")
    return rows


def read(folder: str) -> tuple[str, list[dict]]:
    """Return the name and the epochs of a finished run, with the machine it was on."""
    from kerascnn.training import load_run

    run, spent, rows = load_run(folder), 0.0, []
    versions = run.config["versions"]
    on = f"{run.config['hardware']}, {versions['backend']}"
    on += f" {versions[versions['backend']]}"
    for row in run.history:
        spent += row["seconds"]
        rows.append(
            {
                "epoch": row["epoch"],
                "seconds": spent,
                "accuracy": 100 * row["val_accuracy"],
                "on": on,
            }
        )
    return f"{run.name}, {len(rows)} epochs, seed {run.config['seed']}", rows


def kept(name: str) -> dict[str, list[dict]]:
    """Return the trainings of an earlier result: their run folders may be gone."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text())["runs"] if file.exists() else {}


def first(rows: list[dict], goal: float) -> float | None:
    """Return the seconds after which an accuracy was reached, None if it was not."""
    return next((r["seconds"] for r in rows if r["accuracy"] >= goal), None)


def picture(found: dict[str, list[dict]], goals: list[float], title: str) -> Figure:
    """Draw accuracy against time."""
    figure = Figure(figsize=(8, 4.5 + 0.1 * len(found)), layout="constrained")
    ax = figure.subplots()
    colors = [
        "#0072B2",
        "#56B4E9",
        "#E69F00",
        "#999999",
        "#009E73",
        "#CC79A7",
        "#D55E00",
    ]
    for number, (name, rows) in enumerate(found.items()):
        ax.plot(
            [row["seconds"] for row in rows],
            [row["accuracy"] for row in rows],
            color=colors[number % 7],
            marker="os^DvpX"[number % 7],
            linestyle=("-", "--", ":")[number // 7 % 3],
            markersize=4,
            label=name,
        )
    for goal in goals:
        ax.axhline(goal, color="black", linewidth=0.5, linestyle=":")
    ax.set(xlabel="seconds of training", ylabel="validation accuracy, %")
    ax.set_title(title)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def main() -> None:
    """Train all, one after the other; write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goals", nargs="+", type=float, default=[60, 70, 75])
    parser.add_argument("--recipes", nargs="+", default=list(OURS))
    parser.add_argument(
        "--peers", nargs="*", default=list(BEGINNERS), choices=list(PEERS)
    )
    parser.add_argument("--runs", nargs="*", help="finished run folders instead")
    parser.add_argument("--seconds", type=float, default=1200, help="at most, each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="accuracy", help="of the result's files")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        clock = Clock(max(options.goals), options.seconds)
        if options.contender in PEERS:
            try:
                PEERS[options.contender](clock, options.seed)
            except ImportError as error:
                print(json.dumps({"absent": str(error)}))
        else:
            network, _, recipe = options.contender.partition(":")
            train_ours(network, recipe or "default", clock, options.seed)
        return
    finished = options.runs is not None
    if finished:
        found = kept(options.name) | dict(map(read, options.runs))
    else:
        found = {
            name: rows
            for name in (*options.recipes, *options.peers)
            if (rows := run(name, max(options.goals), options.seconds, options.seed))
        }
    table = []
    for name, rows in found.items():
        reached = {g: first(rows, g) for g in options.goals}
        table.append(
            {
                "network": name,
                **{f"{g:g} %": f"{s:.0f} s" if s else "-" for g, s in reached.items()},
                "best": f"{max(row['accuracy'] for row in rows):.1f} %",
                "epochs": len(rows),
                "seconds": f"{rows[-1]['seconds']:.0f}",
                **({"on": rows[-1].get("on", "-")} if finished else {}),
            }
        )
    from kerascnn import load_data

    data = load_data("cifar10")
    heading = "Seconds of training until the accuracy"
    title = (
        f"Time to accuracy on {data.title}, {len(data.validation):,} held-out images"
    )
    write(
        options.name,
        title,
        [(heading if finished else f"{heading}, seed {options.seed}", table)],
        {"runs": found, "seed": None if finished else options.seed},
        lambda: picture(found, options.goals, title),
        elsewhere=finished,
    )


if __name__ == "__main__":
    main()
