# %% [markdown]
# # 13 Export and serve: an answer over HTTP, and the same answer by hand
#
# **What you will learn.** How a trained network leaves the program that trained it: as
# a file (SavedModel) that answers without Keras; how a server (서버) answers requests
# (요청) with it over HTTP; what such a request looks like, and which mistakes it
# invites; how a new version takes over while the old one is still answering. And that
# there is nothing in between: the server's answer is, number by number, the sum of
# products that chapter 03 computed by hand.
#
# **Time.** About half a minute. Nothing is trained here: the weights of the lecture's
# CNN come with the package.
#
# The server is an extra: `pip install "kerascnn[serve]"`. Every number in the prose is
# asserted.

# %%
import atexit
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import kerascnn
from kerascnn.serving import check_in_fresh_process, rollback, versions

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE = "#0072B2", "#E69F00"

# %% [markdown]
# ## The picture of chapter 01
#
# The first of the built-in images, and the lecture's CNN with the weights that ship. It
# learned CIFAR-10: ten kinds of things, none of which is a shape of ours. Asked what
# this is, it has to name one of the ten all the same. That is a first lesson about
# serving: a network answers everything, and knows no way of saying "none of these".

# %%
data = kerascnn.load_data("shapes", images=200)
image = data.train.x[0]
model = kerascnn.load("lecture_cnn")
labels = kerascnn.card("lecture_cnn").weights["labels"]
expected = model.predict(image[None], verbose=0)[0]
order = np.argsort(-expected)
print("Keras:", ", ".join(f"{labels[i]} {expected[i]:.1%}" for i in order[:3]))
assert image.shape == (32, 32, 3) and image.dtype == np.uint8
assert len(labels) == 10 and np.isclose(expected.sum(), 1, atol=1e-6)

# %% [markdown]
# ## By hand
#
# Before anything is exported: what *is* the answer? Chapter 03 computed one number of a
# map as a sum of products. The whole network is nothing else, 6,558,720 products for
# one image. Here it is in NumPy, in the order of the lecture, without Keras: scale the
# pixels; three times convolve, ReLU, take the largest of 2·2; one row of 512 numbers;
# ten sums; and the softmax (소프트맥스), which turns ten sums into ten probabilities.


# %%
def convolve(x, filters):
    """Slide filters (5, 5, channels, filters) over x, with a frame of two zeros."""
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))
    # windows: (rows, columns, channels, 5, 5); one sum of products for each filter
    return np.einsum("rckij,ijkf->rcf", windows, filters, optimize=True)


def pool(x):
    """Take the largest of every 2·2 values of each map."""
    rows, columns, channels = x.shape
    return x.reshape(rows // 2, 2, columns // 2, 2, channels).max(axis=(1, 3))


def by_hand(image, weights):
    """Compute the ten probabilities of the lecture's CNN."""
    *filters, last = weights
    x = image.astype(np.float64) / 127.5 - 1
    shapes = [x.shape]
    for kernel in filters:
        x = pool(np.maximum(convolve(x, kernel), 0))
        shapes.append(x.shape)
    sums = x.reshape(-1) @ last
    powers = np.exp(sums - sums.max())
    return powers / powers.sum(), sums, shapes


weights = [np.asarray(w, np.float64) for w in model.get_weights()]
hand, sums, shapes = by_hand(image, weights)
print("by hand:", ", ".join(f"{labels[i]} {hand[i]:.1%}" for i in order[:3]))
print("on the way:", " -> ".join("x".join(map(str, shape)) for shape in shapes))
assert [w.size for w in weights] == [2_400, 12_800, 12_800, 5_120]
assert sum(w.size for w in weights) == 33_120
assert shapes == [(32, 32, 3), (16, 16, 32), (8, 8, 16), (4, 4, 32)]
products = 32 * 32 * 2_400 + 16 * 16 * 12_800 + 8 * 8 * 12_800 + 5_120
assert products == 6_558_720
assert np.abs(hand - expected).max() < 1e-5

# %% [markdown]
# One of these products with its neighbours, as in chapter 03: the centre of the first
# map is the sum of 5·5·3 = 75 products, of the 75 numbers around the pixel in row 16,
# column 16, and of the 75 weights of the first filter.

# %%
window = image[14:19, 14:19].astype(np.float64) / 127.5 - 1
terms = window * weights[0][..., 0]
print(f"{terms.size} products, from {terms.min():.3f} to {terms.max():.3f}; "
      f"their sum is {terms.sum():.4f}")  # fmt: skip
assert terms.size == 75
assert np.isclose(terms.sum(), convolve(image / 127.5 - 1, weights[0])[16, 16, 0])

# %% [markdown]
# ## Export: the network as a file
#
# `export` writes the network as a SavedModel, TensorFlow's format for serving: the
# weights, and the graph (그래프) of what is done with them. To run it, neither Python
# nor Keras nor this package is needed. Versions (버전) are numbered folders; servers
# take the one with the largest number.

# %%
folder = Path("tutorials/output/13_served")
shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
version = kerascnn.export("lecture_cnn", folder / "lecture_cnn")
for file in sorted(p for p in version.rglob("*") if p.is_file()):
    print(f"{file.relative_to(folder)}: {file.stat().st_size:,} bytes")
assert version.name == "1" and (version / "saved_model.pb").is_file()

# %% [markdown]
# Is it the same network? A fresh process that is forbidden to import Keras and this
# package reads the folder and answers the same picture:

# %%
difference = check_in_fresh_process(version, image[None], expected[None])
print(f"a process with TensorFlow alone: a probability differs by {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# ## Serve: the network behind an address
#
# `kerascnn serve FOLDER` is the command. Here it runs beside this script, on a port
# (포트) that is free. It listens on 127.0.0.1 alone, the machine's name for itself, so
# nobody else can ask it.


# %%
def start(folder):
    """Start the server; return the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kerascnn", "serve", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.kill)  # should this script fail before it stops it
    for line in process.stdout:
        if "http://" in line:
            return process, line[line.index("http://") :].split()[0]
    raise RuntimeError("the server did not start; is kerascnn[serve] installed?")


def ask(url, body=None):
    """Send a request; return the code and the answer, both as HTTP gives them."""
    content = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, content, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


server, address = start(folder)
code, status = ask(f"{address}/v1/models/lecture_cnn")
print(code, json.dumps(status))
state = status["model_version_status"][0]
assert code == 200 and (state["version"], state["state"]) == ("1", "AVAILABLE")

# %% [markdown]
# ## A request
#
# The forms of the address and of the JSON are those of TensorFlow Serving, so whatever
# can ask the one can ask the other. `instances` is a list of images, each 32 rows of 32
# columns of 3 numbers:

# %%
question = {"instances": [image.tolist()]}
code, answer = ask(f"{address}/v1/models/lecture_cnn:predict", question)
prediction = answer["predictions"][0]
served = np.array(prediction["probabilities"])
print(code, prediction["label"], f"{served.max():.1%}")
assert code == 200
assert prediction["label"] == labels[prediction["class_id"]] == labels[order[0]]

# %% [markdown]
# The server's ten numbers, Keras' ten, and the ten that were computed by hand, agree to
# five decimals. There is no step that anybody has to believe.

# %%
print(f"server against Keras:   {np.abs(served - expected).max():.1e}")
print(f"server against by hand: {np.abs(served - hand).max():.1e}")
assert np.abs(served - expected).max() < 1e-5
assert np.abs(served - hand).max() < 1e-5

# %% tags=["hide-input"]
figure = Figure(figsize=(9, 3.6), layout="constrained")
figure.suptitle("The same ten numbers, by hand and over HTTP")
left, right = figure.subplots(1, 2, width_ratios=(1, 2.2))
left.imshow(image)
left.set(title="the picture", xlabel="column (pixels)", ylabel="row (pixels)")
places = np.arange(10)
right.barh(places - 0.2, 100 * hand, 0.38, color=BLUE, label="by hand, in NumPy")
right.barh(places + 0.2, 100 * served, 0.38, color=ORANGE, label="from the server")
right.set_yticks(places, labels)
right.invert_yaxis()
right.set(title="the answer", xlabel="probability (%)")
right.legend(frameon=False)
description = (
    "The picture of chapter 01, and for each of the ten classes two bars of the same "
    f"length: the probability computed by hand and the server's; {labels[order[0]]} "
    "is the longest."
)
figure.savefig(
    FIGURES / "13_same_answer.png", dpi=150, metadata={"Description": description}
)
print(f"{FIGURES / '13_same_answer.png'}: {description}")

# %% [markdown]
# ## What travels
#
# The image has 3,072 bytes. Written as JSON numbers it grows several times; as a PNG
# file in base64, which spells any bytes with 64 harmless characters, four for three, it
# is far smaller, and it may be of any size: the second signature (시그니처) of the
# version, `serve_bytes`, decodes and resizes inside the graph.

# %%
file = io.BytesIO()
Image.fromarray(image).save(file, "PNG")
encoded = base64.b64encode(file.getvalue()).decode()
question = {"signature_name": "serve_bytes", "instances": [{"b64": encoded}]}
code, answer = ask(f"{address}/v1/models/lecture_cnn:predict", question)
from_file = np.array(answer["predictions"][0]["probabilities"])
sizes = {
    "bytes in memory": image.nbytes,
    "as JSON numbers": len(json.dumps(image.tolist())),
    "as JSON numbers divided by 255": len(json.dumps((image / 255).tolist())),
    "as PNG in base64": len(encoded),
}
for name, size in sizes.items():
    print(f"{name}: {size:,}")
assert image.nbytes == 3_072
assert sizes["as JSON numbers"] > 3 * 3_072
assert sizes["as JSON numbers divided by 255"] > 15 * 3_072
assert len(encoded) == 4 * -(-len(file.getvalue()) // 3)
assert np.abs(from_file - expected).max() < 1e-5

# %% [markdown]
# ## The mistake that answers
#
# Most tutorials divide pixels by 255 before training. Whoever sends such numbers to a
# network that expects 0 to 255 shows it a black picture, since all of them lie between
# 0 and 1. A server that takes any number would answer, with confidence, and wrongly:
# nothing fails, only the answers are bad. This one takes whole numbers from 0 to 255,
# and says where it met another.

# %%
code, answer = ask(
    f"{address}/v1/models/lecture_cnn:predict",
    {"instances": [(image / 255).round(3).tolist()]},
)
print(code, answer["error"])
assert code == 400
black = model.predict((image / 255)[None], verbose=0)[0]
nothing = model.predict(np.zeros((1, 32, 32, 3)), verbose=0)[0]
print(f"what it would have answered differs from the answer to a black image by "
      f"{np.abs(black - nothing).max():.3f}, from the right one by "
      f"{np.abs(black - expected).max():.3f}")  # fmt: skip
assert np.abs(black - nothing).max() < 0.05
code, answer = ask(f"{address}/v1/models/vgg:predict", {"instances": []})
print(code, answer["error"])
assert code == 404

# %% [markdown]
# ## The next version
#
# A network is trained again, and the new weights have to take over while people ask.
# Here the "new" one is a network of the same kind with random weights, so that one can
# see the change. It is published as version 2; the server looks into the folder every
# second, loads it beside version 1, and switches when it is ready. In between, every
# request is answered, by one or the other. `kerascnn.Client` does the asking; it sends
# the pixels as they are, 3,072 bytes.

# %%
keras.utils.set_random_seed(0)
fresh = kerascnn.build("lecture_cnn")
second = kerascnn.export(fresh, folder / "lecture_cnn", labels=list(labels))
assert second.name == "2"
client = kerascnn.Client(address, "lecture_cnn")


def probabilities():
    """Ask the server for the ten probabilities, in the order of the classes."""
    (found,) = client.predict(image[None])
    return np.array([found.probabilities[label] for label in labels])


new = fresh.predict(image[None], verbose=0)[0]
asked, changed_at, until = 0, None, time.monotonic() + 60
while changed_at is None and time.monotonic() < until:
    seen = probabilities()
    asked += 1
    old_one = np.abs(seen - expected).max() < 1e-5
    new_one = np.abs(seen - new).max() < 1e-5
    assert old_one or new_one  # never a mixture, never an error
    changed_at = asked if new_one else None
print(f"the answer to request {changed_at} came from version 2; all were answered")
assert changed_at is not None

# %% [markdown]
# Version 2 knows nothing. To go back, version 1 is published again, as version 3: a
# number is never used twice, so whoever noted "version 2 answered" can rely on it.

# %%
third = rollback(folder / "lecture_cnn")
for found in versions(folder / "lecture_cnn"):
    print(found)
assert (third.number, third.copy_of) == (3, 1)
until = time.monotonic() + 60
while time.monotonic() < until:
    seen = probabilities()
    if np.abs(seen - expected).max() < 1e-5:
        break
    time.sleep(0.1)
assert np.abs(seen - expected).max() < 1e-5

# %% [markdown]
# ## How long does an answer take?
#
# One image at a time, the way there and back included. On the page at the server's
# address, `/`, you can drop a photograph of your own and see the same.

# %%
times = []
for _ in range(10 if SMOKE else 100):
    begun = time.perf_counter()
    client.predict(image[None])
    times.append(1000 * (time.perf_counter() - begun))
print(f"median of {len(times)} requests: {np.median(times):.1f} ms")

server.terminate()
assert server.wait(timeout=60) == 0  # what was asked is answered, then it ends
shutil.rmtree(folder)

# %% [markdown]
# ## Summary
#
# - A network is sums of products: 6,558,720 of them here, and NumPy, Keras, a
#   SavedModel without Keras and a server over HTTP give the same ten numbers, to five
#   decimals.
# - An export holds the graph and the weights. The scaling of the pixels is a layer of
#   the network, so it travels along, and nobody has to remember it.
# - Versions are numbered folders. The largest is served; a rollback is a new number.
# - Send files, not JSON numbers; and send pixels as they are, from 0 to 255.
#
# ## Exercises
#
# 1. The server answered with ten probabilities. Which step of `by_hand` would you leave
#    out if only the label were asked for?
# 2. JSON writes the pixel 7 with one character and 255 with three. About how many bytes
#    does a JSON image of 224·224 pixels have at most, with `, ` between numbers and the
#    brackets left out? And as bytes in memory?
# 3. Why is the number of the version in the folder's name, and not in the file?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. The softmax: it keeps the order, so the largest sum is the largest probability.
assert sums.argmax() == hand.argmax() == expected.argmax()

# 2. 224·224·3 = 150,528 numbers of at most 3 characters and 2 between: 752,640 bytes,
#    five times the 150,528 bytes in memory.
assert 224 * 224 * 3 == 150_528
assert 150_528 * (3 + 2) == 752_640 == 5 * 150_528

# 3. A folder is renamed in one step, and only when all that is in it is complete. So a
#    server sees all of a version or nothing; a number inside a file would be seen while
#    the files beside it are still being written.
print("All numbers of this tutorial hold.")
