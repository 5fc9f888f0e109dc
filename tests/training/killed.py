"""Trainings that are killed, again and again, in processes of their own.

    python killed.py FOLDER KILLS SEED

Everything is imported once; each training is a fork, which is killed by `kill -9` in
the middle of an epoch, at its end or while the result is written, and resumed. Prints
the number of kills that met a living process.
"""

import os
import random
import signal
import sys
import time

import keras

sys.path.insert(0, os.path.dirname(__file__))
from conftest import make_data

import kerascnn

EPOCHS, PAUSE = 5, 0.1
RECIPE = {"epochs": EPOCHS, "batch_size": 16, "flip": True, "keep": "best"}


class Told(keras.callbacks.Callback):
    """Tells the parent what happens, and takes its time."""

    def __init__(self, pipe):
        super().__init__()
        self.pipe = pipe

    def on_epoch_begin(self, epoch, logs=None):
        os.write(self.pipe, b"begin\n")

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(PAUSE)

    def on_epoch_end(self, epoch, logs=None):
        os.write(self.pipe, b"end\n")


def work(folder, pipe=None):
    """Start or resume the training of a folder; in a fork."""
    data = make_data()
    options = {"progress": False, "callbacks": [Told(pipe)] if pipe else []}
    if os.path.exists(f"{folder}/checkpoint.npz"):
        kerascnn.resume(folder, data=data, **options)
    elif not os.path.exists(f"{folder}/metrics.json"):
        kerascnn.train("lecture_cnn", data, RECIPE, folder=folder, **options)


def fork(folder, pipe=None):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work(folder, pipe)
        code = 0
    finally:
        os._exit(code)


def wait(child, what, pipe):
    """Read the pipe until the child says something; False where it ended before."""
    said = b""
    os.set_blocking(pipe, False)
    while what not in said:
        try:
            said += os.read(pipe, 100)
        except BlockingIOError:
            time.sleep(0.005)
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
    return True


def main(folder, kills, seed):
    rng = random.Random(seed)
    landed = 0
    for number in range(kills):
        reader, writer = os.pipe()
        child = fork(f"{folder}/killed", writer)
        # So many epochs are let through that the last kills meet the end.
        through = (number + 1) * EPOCHS // kills > number * EPOCHS // kills
        if wait(child, b"end\n" if through else b"begin\n", reader):
            time.sleep(rng.uniform(0, 0.5))
            os.kill(child, signal.SIGKILL)
            landed += os.waitpid(child, 0)[1] == signal.SIGKILL
        os.close(reader)
        os.close(writer)
    for name in ("killed", "whole"):
        if os.waitpid(fork(f"{folder}/{name}"), 0)[1]:
            sys.exit(f"{name} failed")
    print(landed)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
