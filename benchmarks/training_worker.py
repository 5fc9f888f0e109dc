"""A contender of training.py: trains a network for an epoch, again and again.

    python training_worker.py {train,fit,torch} NETWORK BATCH IMAGES [OPTION…]

`train` is this package's routine, with flips, crops and metrics; `fit` is what a
tutorial of Keras writes, `torch` what a tutorial of PyTorch writes, but with all
images in memory, which is to its advantage. Neither augments.
"""

import sys
import threading
import time

import numpy as np
from common import AbsentError, work


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random uint8 pixels and labels: speed does not depend on the picture."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(
        0, 10, count
    )


def with_train(network: str, batch: int, count: int, precision: str):
    """Let `kerascnn.train` run in a thread, an epoch whenever it is told to."""
    import tempfile

    import keras

    from kerascnn.data import Data, Images
    from kerascnn.training import train

    x, y = images(count)
    some = Images(x[:128], y[:128])
    data = Data(
        name="random",
        title="random pixels",
        train=Images(x, y),
        validation=Images(x[:0], y[:0]),
        test=some,
        labels=tuple("0123456789"),
        fingerprint="random",
    )
    go, done = threading.Semaphore(0), threading.Semaphore(0)
    measured = {}

    class Turns(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            go.acquire()
            self.start = time.perf_counter()

        def on_train_batch_end(self, step, logs=None):
            # The last call is the end of the epoch; checkpoints are not counted.
            measured["seconds"] = time.perf_counter() - self.start

        def on_epoch_end(self, epoch, logs=None):
            done.release()

    # Not the card's: every contender has the same.
    recipe = {
        "epochs": 1000,
        "batch_size": batch,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "flip": True,
        "crop": 2,
        "precision": precision,
    }

    def run():
        try:
            with tempfile.TemporaryDirectory() as folder:
                train(
                    network,
                    data,
                    recipe,
                    folder=f"{folder}/run",
                    progress=False,
                    callbacks=[Turns()],
                )
        finally:  # whoever waits must not wait for ever
            measured.clear()
            done.release()

    threading.Thread(target=run, daemon=True).start()

    def measure():
        go.release()
        done.acquire()
        if not measured:
            raise RuntimeError("the training ended early; DEBUG=1 shows why")
        return {"images": count, "seconds": measured["seconds"]}

    return measure


def with_fit(network: str, batch: int, count: int, precision: str):
    """Let `model.fit` train on float32 arrays, as tutorials write it."""
    import keras

    import zoo

    if precision != "float32":
        keras.config.set_dtype_policy(precision)
    model = zoo.build(network)
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"]
    )
    x, y = images(count)
    x = x.astype("float32")  # the network divides them by 255 itself

    def measure():
        start = time.perf_counter()
        model.fit(x, y, batch_size=batch, epochs=1, verbose=0)
        return {"images": count, "seconds": time.perf_counter() - start}

    return measure


def with_torch(network: str, batch: int, count: int, *options: str):
    """Train PyTorch's twin of a network; the options change how."""
    import torch
    from torch_twins import build

    import zoo

    model = build(network)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if parameters != zoo.card(network).trainable:
        raise RuntimeError(f"the twin of {network} has {parameters} parameters")
    layout = torch.channels_last if "channels_last" in options else None
    if layout:
        model = model.to(memory_format=layout)
    step = model
    if "compile" in options:
        step = torch.compile(model)
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = torch.nn.CrossEntropyLoss()
    x, y = images(count)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(y)
    half = "bfloat16" in options

    def epoch():
        order, right, total = torch.randperm(count), 0, 0.0
        model.train()
        for first in range(0, count, batch):
            chosen = order[first : first + batch]
            pixels = x[chosen].float() / 255
            if layout:
                pixels = pixels.contiguous(memory_format=layout)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = step(pixels)
                loss = loss_of(logits.float(), y[chosen])
            loss.backward()
            optimizer.step()
            total += loss.item()
            right += (logits.argmax(1) == y[chosen]).sum().item()
        return total, right

    if "compile" in options:
        try:
            step(x[:batch].float() / 255)
        except Exception as error:  # no compiler, mostly: whatever it is, say it
            raise AbsentError(f"torch.compile: {str(error).splitlines()[0]}") from error

    def measure():
        start = time.perf_counter()
        epoch()
        return {"images": count, "seconds": time.perf_counter() - start}

    return measure


if __name__ == "__main__":
    kind, network, batch, count, *options = sys.argv[1:]
    contender = {"train": with_train, "fit": with_fit, "torch": with_torch}[kind]
    work(lambda: contender(network, int(batch), int(count), *options))
