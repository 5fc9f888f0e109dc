# %% [markdown]
# # 06 Pooling: a smaller map, and what a shift of one pixel does to it
#
# **What you will learn.** What max pooling (최대 풀링) and average pooling (평균 풀링)
# compute; why pooling has no parameters (매개변수) and what it saves all the same; and
# how far it is true that pooling makes a network indifferent to where a thing is: what
# a shift of one pixel does with pooling and without, exactly and measured.
#
# **Time.** About a minute on two cores, most of it for two trainings.

# %%
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import arithmetic, explain
from kerascnn.data.shapes import generate
from kerascnn.environment import hardware

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One representative for each region
#
# Pooling (풀링) cuts a map into regions and keeps one number for each. Max pooling
# keeps the greatest: was the feature (특징) anywhere in here, and how strongly? Average
# pooling keeps the mean: how much of it is in here?

# %%
map_ = np.array([[1, 3, 2, 0], [4, 8, 1, 1], [0, 2, 9, 7], [1, 1, 8, 4]], "float32")
regions = map_.reshape(2, 2, 2, 2).swapaxes(1, 2)  # (row, column, 2, 2)
greatest, mean = regions.max((2, 3)), regions.mean((2, 3))
print(greatest, mean, sep="\n")
assert greatest.tolist() == [[8, 2], [2, 9]]
assert mean.tolist() == [[4, 1], [1, 7]]

tensor = map_[None, ..., None]
for layer, by_hand in (
    (keras.layers.MaxPooling2D(2), greatest),
    (keras.layers.AveragePooling2D(2), mean),
):
    by_keras = keras.ops.convert_to_numpy(layer(tensor))[0, ..., 0]
    assert np.array_equal(by_keras, by_hand)
    assert layer.count_params() == 0

# %% [markdown]
# "No parameter involved": `count_params` says 0. Which of four numbers is the greatest
# is not something to be learned.
#
# ## The size: O = I/P
#
# As a rule the pool moves by its own size, so that the regions lie side by side, and I
# pixels become I/P. If P does not divide I, Keras rounds down, and the last pixels are
# lost; with `padding="same"` it rounds up, and the last region is a smaller one: its
# zeros only mark the place and are left out of the maximum and of the mean.

# %%
assert arithmetic.pooling_size(32, 2) == 16
odd = arithmetic.pooling_size(5, 2)
print(odd)
assert float(odd.exact) == 2.5 and odd == 2 and odd.unread == (4,)
assert arithmetic.pooling_size(5, 2, padding="same") == 3
explain.windows(5, 2, pooling=True).plot(FIGURES / "06_left_over.png")

ones = np.ones((1, 5, 5, 1), "float32")
same = keras.layers.AveragePooling2D(2, padding="same")(ones)
assert same.shape == (1, 3, 3, 1)
assert (keras.ops.convert_to_numpy(same) == 1).all()  # a zero would make it less

# %% [markdown]
# `06_left_over.png` shows five pixels, two pools of two below them, and the fifth pixel
# hatched, since no pool reads it.
#
# ## What it saves
#
# A pool of 2 keeps a quarter of the numbers. All that follows has a quarter of the
# work: CONV2 of the lecture's network does 3,276,800 multiplications with POOL1 before
# it and would do 13,107,200 without. And the fully-connected layer (완전 연결층) reads
# 512 numbers instead of 32,768, which is the difference between 5,120 weights and
# 327,680.

# %%
with_pool = arithmetic.convolution_macs(16, 5, 32, 16)
without = arithmetic.convolution_macs(32, 5, 32, 16)
print(f"CONV2 with POOL1 {with_pool:,}, without {without:,} multiplications")
assert with_pool == 3_276_800 and without == 13_107_200
assert arithmetic.dense_parameters(4 * 4 * 32, 10) == 5_120
assert 32 * 32 * 32 == 32_768
assert arithmetic.dense_parameters(32 * 32 * 32, 10) == 327_680

# %% [markdown]
# ## A shift of one pixel, exactly
#
# It is often said that pooling makes a network invariant to shifts (이동 불변성). Let
# us see what is true of it. The simplest map has one 1 and else 0; we move the 1 by a
# pixel to the right and compare.
#
# Without pooling the map changes wherever the 1 is. After pooling it changes only if
# the 1 steps over the border of a region. Of every P columns, P - 1 have their
# neighbour in the same region: with P = 2 half of all places, with P = 4 three
# quarters.


# %%
def unchanged(pool, size=16):
    """Return the share of places (the last column apart) whose shift is not seen."""
    layer = keras.layers.MaxPooling2D(pool)
    places = [(r, c) for r in range(size) for c in range(size)]
    points = np.zeros((len(places), size, size, 1), "float32")
    for i, (r, c) in enumerate(places):
        points[i, r, c] = 1
    pooled = keras.ops.convert_to_numpy(layer(points)).reshape(size, size, -1)
    same = (pooled[:, :-1] == pooled[:, 1:]).all(-1)  # a place and the one to its right
    full = (size // pool - 1) * pool  # whole regions that have a right neighbour
    return same[:, :full].mean()


for pool, share in ((1, 0), (2, 1 / 2), (4, 3 / 4), (8, 7 / 8)):
    print(f"pool {pool}: {unchanged(pool):.3f} of the shifts are not seen")
    assert unchanged(pool) == share

# %% [markdown]
# So the invariance is one by chance: half of the shifts go unseen, the other half are
# seen as well as before. And pooling destroys something, too. Without it the map of the
# shifted image is the shifted map (equivariance, 이동 등변성). After a pool of 2 that
# holds for a shift of 2 pixels, which moves the pooled map by exactly 1, but for a
# shift of one pixel there is no shift of the pooled map that would do: half a number
# does not exist.

# %%
rng = np.random.default_rng(0)
wide = rng.random((1, 16, 20, 1)).astype("float32")
pool2 = keras.layers.MaxPooling2D(2)


def pooled(shift):
    cut = wide[:, :, shift : shift + 16]
    return keras.ops.convert_to_numpy(pool2(cut))[0, ..., 0]


assert np.array_equal(pooled(2)[:, :-1], pooled(0)[:, 1:])
for candidate in (0, 1):
    moved = pooled(0)[:, candidate:]
    assert not np.array_equal(pooled(1)[:, : moved.shape[1]], moved)

# %% [markdown]
# ## A shift of one pixel in a trained network
#
# Real maps are smooth, and nothing in them is one lonely 1. How much do the maps of the
# lecture's CNN, with its trained weights, change when the image moves by one pixel? We
# draw shapes on a larger field and cut two windows from it, one pixel apart, so that
# nothing has to be made up at the border. The network was trained on photographs, but
# its filters see edges in shapes as well.
#
# The measure is the length of the difference of two maps, as a share of the length of
# the first: 0 for equal maps. To learn what pooling does, we compare it with the other
# way to a map of the same size: to keep the first of each 2x2 numbers and forget the
# other three, as a convolution with a stride of 2 does.

# %%
count = 20 if SMOKE else 300
field, _ = generate(count, seed=7, image_size=(33, 33))
one, other = field[:, :32, :32], field[:, :32, 1:]
model = kerascnn.load("lecture_cnn")
names = ("conv1", "pool1", "conv2", "pool2", "conv3", "pool3")
features = keras.Model(model.inputs, [model.get_layer(n).output for n in names])
before = dict(zip(names, features.predict(one, verbose=0), strict=True))
after = dict(zip(names, features.predict(other, verbose=0), strict=True))


def change(a, b):
    a, b = a.reshape(len(a), -1).astype(float), b.reshape(len(b), -1).astype(float)
    lengths = np.linalg.norm(a, axis=1)
    return (np.linalg.norm(a - b, axis=1) / lengths).mean()


changes = {}
for k in (1, 2, 3):
    a, b = before[f"conv{k}"], after[f"conv{k}"]
    halved = [keras.ops.convert_to_numpy(x)[:, ::2, ::2] for x in (a, b)]
    average = [
        keras.ops.convert_to_numpy(keras.ops.average_pool(x, 2, 2)) for x in (a, b)
    ]
    changes[k] = {
        "convolution": change(a, b),
        "every second": change(*halved),
        "average": change(*average),
        "max": change(before[f"pool{k}"], after[f"pool{k}"]),
    }
    print(f"CONV{k}: " + ", ".join(f"{n} {v:.3f}" for n, v in changes[k].items()))

    if not SMOKE:
        assert abs(changes[k]["every second"] - changes[k]["convolution"]) < 0.03
        assert changes[k]["average"] < changes[k]["max"] < changes[k]["convolution"]
if not SMOKE:
    assert round(changes[1]["convolution"], 2) == 0.46
    assert round(changes[1]["max"], 2) == 0.35

# %% tags=["hide-input"]
figure = Figure(figsize=(8, 4.5), layout="constrained")
axes = figure.subplots()
colours = ("#000000", "#D55E00", "#56B4E9", "#0072B2")
hatches = ("", "//", "..", "")
for i, (name, colour, hatch) in enumerate(
    zip(changes[1], colours, hatches, strict=True)
):
    axes.bar(
        [k + 0.2 * (i - 1.5) for k in changes],
        [changes[k][name] for k in changes],
        0.18,
        color=colour,
        hatch=hatch,
        edgecolor="white",
        label={
            "convolution": "maps of the convolution, before any pooling",
            "every second": "every second number kept",
            "average": "average pooling",
            "max": "max pooling (the network's)",
        }[name],
    )
axes.set_xticks(list(changes), [f"CONV{k}" for k in changes])
axes.set_xlabel("maps of which layer")
axes.set_ylabel("change of the maps (share of their length)")
axes.set_ylim(0, None)
axes.set_title(f"The image moves by one pixel: lecture_cnn, {count} shapes")
figure.legend(loc="outside lower center", ncols=2, frameon=False)
figure.savefig(FIGURES / "06_shift.png", dpi=120)

# %% [markdown]
# `06_shift.png` shows four bars for each of CONV1, CONV2 and CONV3. Its black bars, the
# maps before pooling, and the hatched orange ones, every second number, are about
# equally high; those of max pooling are lower, those of average pooling the lowest.
#
# So pooling does what is said of it, but in part: at CONV1 the change falls from 0.46
# to 0.35. Keeping every second number does not help at all, and the average, which is
# smoother than the maximum, helps more. A shift of one pixel remains visible behind
# each layer; what pooling takes away is a part of it, three times over.
#
# ## With pooling and without, trained
#
# Does that reach the answers? We train two networks on shapes from the same seed, with
# the same recipe and the same 33,120 parameters: the lecture's, and one whose
# convolutions have a stride of 2 and no pooling behind them. (The optimizer, Muon,
# needs fewer epochs here than Adam.) Then the test images move by one pixel up, down,
# left and right, and we count how many answers stay the same.


# %%
def without_pooling():
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    for number, filters in enumerate((32, 16, 32), start=1):
        x = keras.layers.Conv2D(
            filters,
            5,
            strides=2,
            padding="same",
            activation="relu",
            use_bias=False,
            name=f"conv{number}",
        )(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(10, activation="softmax", use_bias=False)(x)
    return keras.Model(image, x, name="strided_cnn")


def shifts(images):
    """Move images by one pixel in four directions; the border is repeated."""
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
        yield wide[:, top : top + 32, left : left + 32]


seed = 0
data = kerascnn.load_data("shapes", images=400 if SMOKE else 6_000)
recipe = {
    "epochs": 1 if SMOKE else 4,
    "batch_size": 32,
    "optimizer": "muon",
    "learning_rate": 0.003,
}
accuracy, steady = {}, {}
for make in (without_pooling,) if SMOKE else (kerascnn.lecture_cnn, without_pooling):
    keras.utils.set_random_seed(seed)
    network = make()
    assert network.count_params() == 33_120
    with tempfile.TemporaryDirectory() as runs:
        run = kerascnn.train(
            network, data, recipe, seed=seed, runs=runs, progress=False
        )
    answers = network.predict(data.test.x, verbose=0).argmax(1)
    same = [
        network.predict(moved, verbose=0).argmax(1) == answers
        for moved in shifts(data.test.x)
    ]
    accuracy[network.name] = run.metrics["test_accuracy"]
    steady[network.name] = 100 * np.mean(same)
    print(
        f"{network.name}: {accuracy[network.name]:.1f} % of {len(data.test):,} shapes "
        f"right, {steady[network.name]:.1f} % of the answers stay after a shift of one "
        f"pixel; seed {seed}, {run.metrics['seconds']:.0f} s on {hardware()}"
    )
if not SMOKE:
    assert abs(accuracy["lecture_cnn"] - 96) < 3
    assert abs(accuracy["strided_cnn"] - 72) < 8
    assert steady["lecture_cnn"] > steady["strided_cnn"] + 5
    assert abs(steady["lecture_cnn"] - 96) < 3
    assert accuracy["lecture_cnn"] > accuracy["strided_cnn"] + 10

# %% [markdown]
# About 95 % of the shapes are right with pooling and about 70 % without (by seed and
# machine: 68 to 76 %), and fewer answers change when the image moves. One should not
# read more into it than there is. Both have the same parameters, but not the same work:
# with a stride of 2 a filter stops at a quarter of the places, while with pooling it
# looks at all four and the strongest answer counts. And even with pooling, a shift of a
# single pixel changes one answer in 25: a network learns where things may be from the
# data, in good part.
#
# ## Summary
#
# - A pool keeps one number of each region: the greatest, or the mean. O = I/P.
# - It has no parameters, and a pool of 2 leaves a quarter of the numbers to the rest.
# - A shift within a region is not seen, one over its border is: half of all, with a
#   pool of 2.
# - After pooling, only shifts by a multiple of P shift the map.
# - In the trained network pooling dampens a shift, and does not undo it.
#
# ## Exercises
#
# 1. Overlapping pools: P = 3 at a stride of 2, over 32 pixels. What is O, and does the
#    stride fit?
# 2. The last maps of the lecture's CNN are 4x4x32. Replace the flattening by the mean
#    of each map (global average pooling, 전역 평균 풀링). How many weights does the
#    fully-connected layer have then?
# 3. Through which of the 16 numbers of the first example does a gradient pass, with max
#    and with average pooling? Move each number a little and look at the sum of the
#    pools.
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. (32 - 3)/2 + 1 = 15.5: 15, and the last pixel is not read.
overlapping = arithmetic.pooling_size(32, 3, stride=2)
assert float(overlapping.exact) == 15.5
assert overlapping == 15 and overlapping.unread == (31,)

# 2. 32·10 = 320 instead of 5,120. And an image that is moved by 8 pixels, the stride of
#    all three pools together, changes the means only by what happens at the border.
assert arithmetic.dense_parameters(32, 10) == 320

# 3. With max pooling through the four winners alone, undiminished; with average pooling
#    through all, a quarter each.
slopes = {"max": np.zeros((4, 4)), "average": np.zeros((4, 4))}
for place in np.ndindex(4, 4):
    for name, pool in (("max", np.max), ("average", np.mean)):
        sums = []
        for sign in (1, -1):
            moved = map_.astype(float)
            moved[place] += sign * 1e-3
            moved = moved.reshape(2, 2, 2, 2).swapaxes(1, 2)
            sums.append(pool(moved, axis=(2, 3)).sum())
        slopes[name][place] = (sums[0] - sums[1]) / 2e-3
print(slopes["max"].round(2))
assert np.allclose(slopes["max"].sum(), 4)
assert np.allclose(slopes["max"][[0, 1, 2, 2], [2, 1, 1, 2]], 1)
assert np.allclose(slopes["average"], 0.25)
print("All numbers of this tutorial hold.")
