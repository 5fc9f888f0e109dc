"""What the tests of several devices and hosts run in processes of their own.

    python distributed.py devices FOLDER CASES          on one and on two devices
    python distributed.py host FOLDER ADDRESSES ID [DATA]   one of two hosts

The results are written as JSON, for the test to judge.
"""

import json
import os
import sys

import keras
import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from conftest import make_data

import kerascnn
from kerascnn.training import load_run, resume, train

QUICK = {
    "epochs": 2,
    "batch_size": 16,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "precision": "float32",
    "flip": True,
    "crop": 1,
}
TWO = 2
JAX = keras.backend.backend() == "jax"


def network(busy=False, outputs=1):
    """Convolution and pooling; busy: with batch normalisation and dropout."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    if busy:
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    if busy:
        x = keras.layers.Dropout(0.3)(x)
    ends = [keras.layers.Softmax()(keras.layers.Dense(3)(x)) for _ in range(outputs)]
    return keras.Model(inputs, ends if outputs > 1 else ends[0], name="net")


def distance(one, other):
    """The largest difference of any weight."""
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


# What is trained on one and on two devices: images (their number decides what is left
# for the last batch), the network, and values of the recipe.
CASES = {
    "odd": (71, {}, {"momentum": 0.9, "l2": 0.01, "clip_norm": 1}),
    "fewer-than-devices": (65, {"outputs": 2}, {"loss_weights": (1, 0.3)}),
    "odd-batches": (40, {}, {"batch_size": 15, "universum": "background"}),
    "one-batch": (9, {}, {"lookahead": 1, "weight_decay": 0.1}),
    # On TensorFlow a network without batch normalisation and dropout.
    "busy": (71, {"busy": JAX}, {"ema": 0.9, "keep": "best", "optimizer": "adam"}),
}


def devices(folder, wanted):
    found = {}
    for case in wanted:
        print(case, flush=True)
        number, options, recipe = CASES[case]
        data = make_data(train=number)
        runs = []
        more = {}
        if "universum" in recipe:
            more["universum_data"] = make_data(train=30, seed=4).train.x
        for count in (1, TWO):
            model = network(**options)
            runs.append(
                train(
                    model,
                    data,
                    {**QUICK, **recipe},
                    runs=folder,
                    progress=False,
                    devices=count,
                    **more,
                )
            )
            assert runs[-1].model is model
        one, two = runs
        found[case] = {
            "distance": distance(one.model, two.model),
            "moved": distance(one.model, network(**options)),
            "loss": [[row["loss"] for row in run.history] for run in runs],
            "val_loss": [[row["val_loss"] for row in run.history] for run in runs],
            "config": two.config["devices"],
            "again": distance(load_run(two.folder).model, two.model),
        }
    number, options, recipe = CASES[wanted[0]]
    data, recipe = make_data(train=number), {**QUICK, **recipe}
    broken = f"{folder}/broken"
    try:
        train(
            network(**options),
            data,
            recipe,
            folder=broken,
            devices=TWO,
            progress=False,
            callbacks=[Stop()],
        )
    except KeyboardInterrupt:
        found["stopped"] = os.path.exists(f"{broken}/checkpoint.npz")
    run = resume(broken, data=data, progress=False)
    # The first case on two devices.
    found["resumed"] = distance(run.model, load_run(f"{folder}/net-bands-2").model)
    for count in (3, 0):
        try:
            train(network(), data, QUICK, runs=folder, devices=count)
        except ValueError as error:
            found[f"devices={count}"] = str(error)
    return found


def host(folder, hosts, identity, stream=""):
    identity = int(identity)
    place = {"hosts": hosts, "host_id": identity, "progress": identity == 0}
    kerascnn.training.connect(hosts, identity)
    data = make_data(train=71)
    found = {"host": identity}
    run = train(network(), data, QUICK, folder=f"{folder}/whole", **place)
    # Each host may have a file system of its own: the others are given none to read.
    broken = f"{folder}/broken" if identity == 0 else "/nowhere"
    try:
        train(network(), data, QUICK, folder=broken, callbacks=[Stop()], **place)
    except KeyboardInterrupt:
        found["stopped"] = True
    again = resume(broken, data=data, **place)
    finished = resume(broken, data=data, **place)
    if stream:  # a folder that tfds prepared
        busy = train(network(True), data, QUICK, folder=f"{folder}/busy", **place)
        streamed = {**QUICK, "flip": False, "crop": 0}
        streams = train(
            network(),
            kerascnn.load_data(stream, stream=True, validation=10),
            streamed,
            folder=f"{folder}/stream",
            **place,
        )
    if identity:
        nothing = (run, again, finished)
        found["nothing"] = all(one is None for one in nothing)
        return found
    alone = train(network(), data, QUICK, folder=f"{folder}/alone")
    found |= {
        "distance": distance(run.model, alone.model),
        "resumed": distance(run.model, again.model),
        "finished": distance(finished.model, again.model),
        "loss": [[row["loss"] for row in r.history] for r in (alone, run)],
        "val_loss": [[row["val_loss"] for row in r.history] for r in (alone, run)],
        "config": [run.config["devices"], run.config["hosts"]],
    }
    if stream:
        alone = train(
            network(),
            kerascnn.load_data(stream, stream=True, validation=10),
            streamed,
            folder=f"{folder}/stream-alone",
        )
        found["stream"] = distance(streams.model, alone.model)
        alone = train(network(True), data, QUICK, folder=f"{folder}/busy-alone")
        found["busy"] = distance(busy.model, alone.model)
    return found


if __name__ == "__main__":
    kind, folder, *more = sys.argv[1:]
    if kind == "host":
        result = host(folder, *more)
        path = f"{folder}/host{result['host']}.json"
    else:
        if not JAX:
            import tensorflow as tf

            one = tf.config.LogicalDeviceConfiguration()
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0], [one] * TWO
            )
        result = devices(folder, more)
        path = f"{folder}/devices.json"
    with open(path, "w") as file:
        json.dump(result, file)
