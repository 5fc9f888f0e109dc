# %% [markdown]
# # 09 The ranking, and four of its methods taken apart
#
# **What you will learn.** How to read the lecture's ranking (순위) of CIFAR-10 results:
# which of its differences are larger than chance, and what else is hidden in a figure.
# Then four of its methods, each with the one experiment that shows its idea: fractional
# max pooling, maxout, residual connections (잔차 연결) and exponential linear units.
#
# **Time.** Two to three minutes on two cores. The experiments use small networks and
# the built-in shapes: they show what an idea does, not what place it deserves.
#
# Every number in the prose is asserted.

# %%
import itertools
import math
import os
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

import kerascnn
from kerascnn.comparison import ranking
from kerascnn.environment import hardware
from kerascnn.statistics import wilson
from zoo.references import HUMAN

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
SEED = 0
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK = "#333333"

# %% [markdown]
# ## The slide
#
# Test accuracy (정확도) on CIFAR-10 in percent, the method, and its name in the zoo.
# Two rows are no networks: the human, and the universum prescription, which is a way to
# train one. Beside the table somebody has written 30 % and 50 % by hand; of what, the
# slide does not say. To have a measure: a guess is worth 10 %, and the best single
# layer that this project trained, a linear classifier, about 40 %.

# %%
SLIDE = (
    (96.53, "Fractional Max-Pooling", "fractional_max_pooling"),
    (95.59, "The All Convolutional Net", "all_cnn_large"),
    (94.16, "All you need is a good init", "fit_resnet4"),
    (94.00, "Manually classifying CIFAR-10 (a human)", None),
    (93.95, "Mixed, Gated, and Tree pooling", "tree_gated_nin"),
    (93.72, "Spatially-sparse networks", "deep_cnin"),
    (93.63, "Bayesian Optimization with deep networks", "dngo_cnn"),
    (93.57, "Deep Residual Learning", "resnet110"),
    (93.46, "Exponential Linear Units", "elu_cnn_18"),
    (93.34, "Universum Prescription", None),
    (93.25, "Maxout Network in Network", "maxout_nin"),
    (93.13, "Competitive Multi-scale Convolution", "competitive_multiscale"),
    (92.91, "Recurrent Convolutional Network", "recurrent_cnn_160"),
    (92.49, "Learned Activation Functions", "apl_nin"),
)
for accuracy, method, name in SLIDE:
    print(f"{accuracy:6.2f}  {method:<42}{name or '-'}")
    if name:
        published = kerascnn.card(name).published
        assert any(abs(p.accuracy - accuracy) < 0.011 for p in published)
assert len(SLIDE) == 14
assert round(kerascnn.card("linear").measured()["accuracy_mean"], -1) == 40

# %% [markdown]
# `kerascnn models` prints the same ranking for the whole zoo, with what each figure is,
# how far this project could check it, and what the network costs:

# %%
table = ranking()
print(table.to_text(width=160))
assert table.cards[0].name == "fractional_max_pooling"
assert {name for *_, name in SLIDE if name} <= {card.name for card in table.cards}

# %% [markdown]
# ## A human on 400 images
#
# One person sat down at the keyboard, classified 400 test images, and got 94 % right.
# How good is he? On 400 images, an accuracy of 94 % leaves the interval (신뢰 구간)
# from 91.2 to 95.9 %: with a probability of 95 %, such an interval holds the accuracy
# that he would have on all conceivable images. Of the 13 methods on the slide, 12 lie
# within. So from these figures nobody can say whether the method of 92.49 % is worse
# than a human or that of 95.59 % better. Only the first, 96.53 %, is outside.

# %%
low, high = HUMAN.interval
assert HUMAN.accuracy == 94 and (round(low, 1), round(high, 1)) == (91.2, 95.9)
methods = [(a, method) for a, method, _ in SLIDE if "human" not in method]
within = [method for a, method in methods if low <= a <= high]
assert (len(methods), len(within)) == (13, 12)
assert methods[0][0] > high

# %% tags=["hide-input"]
figure = Figure(figsize=(9, 5), layout="constrained")
axes = figure.subplots()
for place, (accuracy, method, _) in enumerate(SLIDE):
    images = 400 if "human" in method else 10_000
    ends = [100 * end for end in wilson(accuracy / 100, images)]
    colour = VERMILION if images == 400 else BLUE
    axes.plot(ends, [place, place], color=colour, lw=2)
    marker = "D" if images == 400 else "o"
    axes.plot(accuracy, place, marker, color=colour)
axes.axvspan(low, high, color=ORANGE, alpha=0.15)
axes.set_yticks(range(len(SLIDE)), [method for _, method, _ in SLIDE])
axes.invert_yaxis()
axes.set_xlabel("accuracy on CIFAR-10 (%), with its 95 % interval")
axes.set_title("The ranking of the slide, with what chance leaves open")
axes.grid(axis="x", alpha=0.3)
figure.savefig(FIGURES / "09_intervals.png", dpi=150)

# %% [markdown]
# *The picture `09_intervals.png` has a row for each entry of the slide, with its
# accuracy and its interval. The human's, on 400 images, is about five times as wide as
# the others, and its band covers all rows but the first. The intervals of neighbouring
# methods overlap from the third row on.*
#
# ## Which differences are more than chance?
#
# The others were measured on 10,000 images: ± 0.48 points at 93.5 %. For two networks
# measured apart, the difference has to exceed 1.96·√(2·p·(1 - p)/n) = 0.68 points to be
# more than chance, at the usual 5 %. Of the 12 neighbours on the slide, 2 differ by
# more: the first from the second, and the second from the third. Everything from 94.16
# down is a queue in which each could have changed places with the next.


# %%
def needed(accuracy, images):
    """Points by which two accuracies must differ to be more than chance."""
    p = accuracy / 100
    return 100 * 1.96 * math.sqrt(2 * p * (1 - p) / images)


ends = wilson(0.935, 10_000)
assert round(100 * (ends[1] - ends[0]) / 2, 2) == 0.48
assert round(needed(93.5, 10_000), 2) == 0.68
assert round((high - low) / (100 * (ends[1] - ends[0]))) == 5
apart = [
    (first, second)
    for (first, _), (second, _) in itertools.pairwise(methods)
    if first - second > needed((first + second) / 2, 10_000)
]
print(f"neighbours that differ by more than chance: {apart}")
assert apart == [(96.53, 95.59), (95.59, 94.16)]

# %% [markdown]
# (All were tested on the same 10,000 images, and mostly fail on the same ones. Someone
# who has both networks can compare them image by image, which is sharper: tutorial 08
# does. A ranking does not say enough for that.)
#
# Chance is not all that a figure may hide:
#
# - **The best of several.** ResNet-110's 93.57 % is the best of five runs; their mean
#   is 93.39 %, their standard deviation 0.16. The best of five draws from a normal
#   distribution is on average 1.16 standard deviations above the mean, here 0.19
#   points. That is more than there is between most neighbours.
# - **What was done at the test.** Fractional max pooling's 96.53 % is the mean of 100
#   passes; a single pass has 95.50 %. The recurrent network was tested on nine crops of
#   each image.
# - **What was done to the training images.** The All-CNN has 92.75 % with mirrored and
#   shifted images, and 95.59 %, in a larger form, with images that are stretched,
#   turned and recoloured.

# %%
figures = {
    name: [p.accuracy for p in kerascnn.card(name).published]
    for name in ("resnet110", "fractional_max_pooling", "all_cnn_c", "all_cnn_large")
}
assert {93.57, 93.39} <= set(figures["resnet110"])
rng = np.random.default_rng(SEED)
best_of_five = rng.normal(size=(200_000, 5)).max(axis=1).mean()
assert abs(best_of_five - 1.163) < 0.01 and round(0.16 * 1.163, 2) == 0.19
assert {96.53, 95.50} <= set(figures["fractional_max_pooling"])
assert 92.75 in figures["all_cnn_c"] and 95.59 in figures["all_cnn_large"]

# %% [markdown]
# ## Fractional max pooling: pooling that draws lots
#
# Pooling (풀링) of 2x2 halves the map. Ten halvings would need an image of 1,024
# pixels, so a network for 32x32 can have five of them at most. Graham's idea: shrink by
# less, for example by the cube root of 2, so that three poolings make one halving.
# Along each axis, regions of 1 and 2 pixels take turns, and *which* are of 2 is drawn
# anew for every image and every pass.

# %%
FractionalMaxPooling2D = kerascnn.layers.FractionalMaxPooling2D
sides = [32]
for _ in range(3):
    layer = FractionalMaxPooling2D(ratio=2 ** (1 / 3))
    sides.append(layer.compute_output_shape((None, sides[-1], sides[-1], 3))[1])
print(" -> ".join(map(str, sides)))
assert sides == [32, 25, 20, 16]

# %% [markdown]
# From 32 to 25 pixels it takes 25 regions, 7 of 2 pixels and 18 of 1. Here are three
# draws for the same image. (The picture shows regions that lie side by side; in the
# author's program, and by default here, regions overlap by a pixel.)

# %%
data = kerascnn.load_data("shapes", images=200 if SMOKE else 5_000, image_size=24)
large = kerascnn.load_data("shapes", images=200, seed=SEED)
picture = large.test.x[:1]
layer = FractionalMaxPooling2D(output_size=25, regions="disjoint", seed=SEED)
layer.build((None, 32, 32, 3))

# %% tags=["hide-input"]
figure = Figure(figsize=(10, 3.9), layout="constrained")
figure.suptitle(
    "Fractional max pooling, 32 to 25 pixels: three draws (the middle of the image)"
)
draws = set()
for axes in figure.subplots(1, 3):
    rows, columns = layer.draw(1)
    axes.imshow(picture[0], interpolation="nearest")
    for (first, last), line in ((rows, axes.axhline), (columns, axes.axvline)):
        first = keras.ops.convert_to_numpy(first)[0]
        last = keras.ops.convert_to_numpy(last)[0]
        widths = last - first + 1
        assert len(widths) == 25 and widths.sum() == 32
        assert (widths == 2).sum() == 7 and (widths == 1).sum() == 18
        draws.add(tuple(widths))
        for edge in first[1:]:
            line(edge - 0.5, color="white", lw=1)
    axes.set_xlim(7.5, 23.5)
    axes.set_ylim(23.5, 7.5)
    axes.set_xlabel("column (pixels)")
    axes.set_ylabel("row (pixels)")
figure.savefig(FIGURES / "09_regions.png", dpi=150)
print(f"{len(draws)} different draws among 6 (rows and columns of three images)")
assert len(draws) > 1

# %% [markdown]
# *The picture `09_regions.png` shows the middle 16x16 pixels of one image three times,
# under a grid of white lines. Most of its cells are one pixel wide, every fourth or so
# two; which ones differs from draw to draw.*
#
# A network with such poolings gives another answer in every pass, as if it were each
# time a slightly different network with the same weights. So one can ask it several
# times and take the mean of the probabilities. What does that gain? A small network
# with four poolings by √2, from 24 pixels to 6, on 4,500 shapes:

# %%
PASSES = 4 if SMOKE else 16


# %% tags=["hide-input"]
def drawing_network():
    image = keras.Input((24, 24, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    for filters in (16, 24, 32, 48):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
        )(x)
        x = FractionalMaxPooling2D(ratio=2**0.5, mode="random", seed=SEED)(x)
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def fit(model, images, classes, *, epochs, rate, batch_size=64, momentum=None):
    """Train on some images with a falling rate; return the loss of each epoch."""
    steps = epochs * math.ceil(len(images) / batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    if momentum is None:
        optimizer = keras.optimizers.Adam(schedule)
    else:
        optimizer = keras.optimizers.SGD(schedule, momentum=momentum)
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=SMOKE)
    return model.fit(images, classes, batch_size, epochs, verbose=0).history["loss"]


# %%
keras.utils.set_random_seed(SEED)
begin = time.perf_counter()
network = drawing_network()
assert network.layers[-2].output.shape == (None, 6 * 6 * 48)
seen = slice(0, 32) if SMOKE else slice(None)
fit(
    network,
    data.train.x[seen],
    data.train.y[seen],
    epochs=1 if SMOKE else 8,
    rate=0.003,
)
said = np.stack([network.predict(data.test.x, 250, verbose=0) for _ in range(PASSES)])
by_passes = {}
for k in (1, 2, 4, 8, 16)[: PASSES.bit_length()]:
    means = said.reshape(PASSES // k, k, *said.shape[1:]).mean(axis=1)
    by_passes[k] = 100 * (means.argmax(axis=-1) == data.test.y).mean()
    print(f"mean of {k:>2} passes: {by_passes[k]:.1f} % of {len(data.test):,} images")
print(f"seed {SEED}, {time.perf_counter() - begin:.0f} s, {hardware()}")

# %% [markdown]
# A single pass is worth much less than the mean of 16: more than 6 points lie between
# them here, and each doubling adds some. That is what stands behind the 100 passes of
# the slide's first row. The price is paid at every prediction, 100 times over.
#
# `kerascnn.evaluate` takes the mean of so many passes by itself. Its 16 passes draw
# other regions than ours above, so its figure is another one, by less than 2.5 points:
# what chance leaves of the mean of 16 on these few images.

# %%
assert SMOKE or by_passes[16] > by_passes[1] + 6
assert SMOKE or by_passes[1] < by_passes[2] < by_passes[4] < by_passes[8]
kept = kerascnn.evaluate(network, data.test, passes=PASSES)
print(f"kerascnn.evaluate with passes={PASSES}: {kept.accuracy:.1f} %")
assert kept.passes == PASSES
assert SMOKE or abs(kept.accuracy - by_passes[16]) < 2.5

# %% [markdown]
# ## Maxout: an activation function that is learned
#
# ReLU is max(0, w·x): the larger of two linear functions, one of which is 0. Maxout
# takes the maximum of k linear functions, all of them learned. The maximum of linear
# functions is convex (볼록): a chain of straight pieces that only ever bends upwards.
# So a maxout unit can imitate any convex function, with enough pieces as closely as one
# likes, and no other.
#
# Four functions on -1…1: x², |x| and eˣ are convex, -x² is not. A unit of 2 pieces and
# one of 4 learn each of them. (Gradient descent can leave pieces unused, below the
# others everywhere, where they get no gradient. So 8 units learn the same function from
# different starts, and the best is kept.)

# %%
STARTS = 8
x = np.linspace(-1, 1, 201, dtype=np.float32)[:, None]
FUNCTIONS = {
    "x²": x**2,
    "|x|": np.abs(x),
    "eˣ": np.exp(x),
    "-x²": -(x**2),
}
targets = np.repeat(np.concatenate(list(FUNCTIONS.values()), axis=1), STARTS, axis=1)


# %% tags=["hide-input"]
def learn_units(pieces, steps=2 if SMOKE else 1_500):
    """Return what units of so many pieces make of the functions, and the errors."""
    keras.utils.set_random_seed(SEED)
    value = keras.Input((1,))
    linear = layers.Dense(
        4 * STARTS * pieces,
        kernel_initializer=keras.initializers.RandomUniform(-2, 2),
        bias_initializer=keras.initializers.RandomUniform(-1, 1),
    )(value)
    model = keras.Model(value, kerascnn.layers.Maxout(pieces)(linear))
    rate = keras.optimizers.schedules.CosineDecay(0.05, steps)
    model.compile(keras.optimizers.Adam(rate), "mse", run_eagerly=SMOKE)
    model.fit(
        np.tile(x, (steps, 1)),
        np.tile(targets, (steps, 1)),
        batch_size=len(x),
        shuffle=False,
        verbose=0,
    )
    found = keras.ops.convert_to_numpy(model(x)).astype(float)
    errors = np.sqrt(np.mean((found - targets) ** 2, axis=0)).reshape(4, STARTS)
    best = errors.argmin(axis=1)
    found = found.reshape(len(x), 4, STARTS)
    return [found[:, i, best[i]] for i in range(4)], errors.min(axis=1)


# %%
learned = {pieces: learn_units(pieces) for pieces in (2, 4)}
for pieces, (_, errors) in learned.items():
    shown = zip(FUNCTIONS, errors, strict=True)
    print(f"{pieces} pieces, error: " + ", ".join(f"{n} {e:.3f}" for n, e in shown))

# %% [markdown]
# |x| is two straight pieces, and two pieces learn it exactly. x² on -1…1, cut into k
# equal pieces, leaves a root mean square error of 0.298/k² at best: 0.075 with two, and
# less than half of that with four. For -x² the best that is convex is a constant: an
# error of 0.298, whatever the number of pieces, and that is what is found. Whoever
# wants -x² has to subtract one maxout unit from another; with that, any continuous
# function can be had.

# %%
by_function = {p: dict(zip(FUNCTIONS, e, strict=True)) for p, (_, e) in learned.items()}
# The error of a straight line fitted to x² over a length of h is h²/√180; h = 2/k.
assert round(4 / math.sqrt(180), 3) == 0.298
assert round(math.sqrt(4 / 45), 3) == 0.298  # the standard deviation of x² on -1…1
for found, _ in learned.values():
    for curve in found:
        assert np.diff(curve, n=2).min() > -1e-4  # convex, trained or not
if not SMOKE:
    assert by_function[2]["|x|"] < 0.005
    assert 0.07 < by_function[2]["x²"] < 0.085
    assert by_function[4]["x²"] < by_function[2]["x²"] / 2
    assert all(0.29 < by_function[p]["-x²"] < 0.32 for p in (2, 4))

# %% tags=["hide-input"]
figure = Figure(figsize=(10, 3.4), layout="constrained")
figure.suptitle("What a maxout unit can learn: convex functions, and no other")
for i, (axes, (name, values)) in enumerate(
    zip(figure.subplots(1, 4), FUNCTIONS.items(), strict=True)
):
    axes.plot(x, values, color=INK, lw=4, alpha=0.3, label="wanted")
    axes.plot(x, learned[2][0][i], "--", color=VERMILION, label="2 pieces")
    axes.plot(x, learned[4][0][i], color=BLUE, label="4 pieces")
    axes.set_title(name)
    axes.set_xlabel("input")
    axes.grid(alpha=0.3)
    if i == 0:
        axes.set_ylabel("output of the unit")
        axes.legend(fontsize=8)
figure.savefig(FIGURES / "09_maxout.png", dpi=150)

# %% [markdown]
# *The picture `09_maxout.png` has four panels. In the first three, the chains of
# straight pieces lie on the grey curve or close to it, for x² the one of four pieces
# closer than that of two; in the fourth, the wanted curve is an arch, and both chains
# are a flat line across it. Where the two agree, only the second can be seen.*
#
# ## ResNet: what if a layer has nothing to add?
#
# A deeper network can do all that a shallower one can: it only has to pass its input
# through the layers that it does not need. But a stack of convolutions with random
# weights does not pass anything through; doing nothing has to be learned. He and his
# colleagues turned this round: a block computes x + F(x), with F two convolutions. If F
# is 0, the block does nothing.
#
# Batch normalisation (배치 정규화) has a factor for each channel, 1 at the start. Set
# it to 0 after the second convolution of every block, so that F = 0, and see what is
# left of the network: 32 convolutions with shortcuts, and 32 without.

# %%
DEEP = 4 if SMOKE else 32


# %% tags=["hide-input"]
def stack(depth, residual, factor, filters=16):
    """Build so many 3x3 convolutions on 8x8 maps, with or without shortcuts.

    `factor`, "zeros" or "ones", is where the factors of the batch normalisation after
    every second convolution start.
    """
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = layers.Conv2D(filters, 5, strides=4, padding="same", activation="relu")(x)
    for _ in range(depth // 2):
        y = x
        for place in (1, 2):
            y = layers.Conv2D(
                filters,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
            )(y)
            y = layers.BatchNormalization(
                momentum=0.9, gamma_initializer=factor if place == 2 else "ones"
            )(y)
            if place == 1:
                y = layers.ReLU()(y)
        x = layers.ReLU()(layers.Add()([x, y]) if residual else y)
    x = layers.Flatten(name="features")(x)
    # Starting from 0, all networks start from the loss of a guess.
    x = layers.Dense(10, activation="softmax", kernel_initializer="zeros")(x)
    return keras.Model(image, x)


# %%
sample = large.train.sample(6, classes=10, seed=SEED)


def features(model, images):
    inner = keras.Model(model.input, model.get_layer("features").output)
    return keras.ops.convert_to_numpy(inner(images.astype("float32")))


nothing = {}
for residual in (False, True):
    keras.utils.set_random_seed(SEED)
    nothing[residual] = features(stack(DEEP, residual, "zeros"), sample.x)
keras.utils.set_random_seed(SEED)
# The same first convolution, and no more.
shallow = features(stack(0, True, "zeros"), sample.x)
spread = {residual: values.std(axis=0).max() for residual, values in nothing.items()}
print(f"spread over the images: plain {spread[False]:.3f}, residual {spread[True]:.3f}")
assert spread[False] == 0 and spread[True] > 0.1
assert np.array_equal(nothing[True], shallow)

# %% [markdown]
# Without shortcuts all images have become alike: nothing of the input arrives. With
# them, the output is exactly that of the first convolution alone: 32 convolutions that
# cost nothing but time. What they then learn is added to that.
#
# Now let them learn: the depths 8 and 32, with and without shortcuts, 60 images by
# heart in the same 80 steps. The residual networks start from there, with factors of 0,
# as has become usual since; the plain ones start with factors of 1, since from 0 they
# could not start at all. (The paper has factors of 1 everywhere. In this small trial
# the deep residual network does not get far with them: what the blocks add piles up,
# and the first steps are too large. The paper takes the mean of each map at the end,
# which tempers this, and hundreds of times as many steps.)

# %%
EPOCHS = 1 if SMOKE else 40
curves = {}
for residual in (False, True):
    for depth in (DEEP,) if SMOKE else (8, DEEP):
        keras.utils.set_random_seed(SEED)
        begin = time.perf_counter()
        name = f"{depth} {'residual' if residual else 'plain'}"
        curves[name] = fit(
            stack(depth, residual, "zeros" if residual else "ones"),
            sample.x,
            sample.y,
            epochs=EPOCHS,
            rate=0.02,
            batch_size=60 if SMOKE else 30,
            momentum=0.9,
        )
        print(
            f"{name:<12} loss {curves[name][0]:.2f} to {curves[name][-1]:.3f} "
            f"({time.perf_counter() - begin:.0f} s, seed {SEED})"
        )

# %% [markdown]
# The deep plain network does worse than the shallow plain one, on the images that it is
# trained on: this is not overfitting (과적합), it is a failure to learn, and it is what
# the paper begins with. Its loss after the 80 steps is above 1; that of the three other
# networks is below 0.3. With shortcuts the deep network learns the images. At depth 8
# the plain network is the quicker one: shortcuts are for depth.

# %%
if not SMOKE:
    final = {name: losses[-1] for name, losses in curves.items()}
    assert final.pop("32 plain") > 1
    assert len(final) == 3 and max(final.values()) < 0.3
    assert final["8 plain"] < final["8 residual"]

# %% tags=["hide-input"]
figure = Figure(figsize=(8, 4.2), layout="constrained")
axes = figure.subplots()
for name, losses in curves.items():
    colour = BLUE if "residual" in name else VERMILION
    style = "-" if name.startswith(str(DEEP)) else "--"
    axes.plot(range(1, EPOCHS + 1), losses, style, color=colour, label=name)
axes.set_xlabel("epoch (two steps)")
axes.set_ylabel("cross-entropy on the training images (nats)")
axes.set_title("Convolutions in a row, plain and with residual connections")
axes.grid(alpha=0.3)
axes.legend(title="convolutions")
figure.savefig(FIGURES / "09_residual.png", dpi=150)

# %% [markdown]
# *The picture `09_residual.png` has four curves of the training loss: the plain
# networks in orange, the residual ones in blue, the deep ones solid. Three of them fall
# to the bottom; that of the deep plain network stays near the top.*
#
# ## ELU: a mean of zero
#
# What comes out of a ReLU is never negative, so its mean is positive, and each unit of
# the next layer gets a push in one direction from all of its inputs at once. The
# exponential linear unit is x above 0, as ReLU is, and eˣ - 1 below: between 0 and -1.
# The negative answers pull the mean back towards zero.
#
# For inputs from the standard normal distribution the means can be worked out: 0.399,
# which is 1/√(2π), for ReLU, 0.161 for ELU.

# %%
normal = rng.normal(size=1_000_000).astype(np.float32)
means = {
    name: float(keras.ops.mean(keras.activations.get(name)(normal)))
    for name in ("relu", "elu")
}
print(means)
below = math.exp(0.5) * 0.5 * math.erfc(1 / math.sqrt(2)) - 0.5  # of eˣ - 1, x < 0
assert round(1 / math.sqrt(2 * math.pi), 3) == 0.399
assert round(1 / math.sqrt(2 * math.pi) + below, 3) == 0.161
assert abs(means["relu"] - 0.399) < 0.003 and abs(means["elu"] - 0.161) < 0.003

# %% [markdown]
# Now in a network: the paper's, `elu_cnn_11`, at an eighth of its width, and its twin
# with the same weights and ReLU in place of ELU. After each convolution: the mean of
# all values, as a share of their standard deviation, over 60 images, before training.


# %% tags=["hide-input"]
def with_relu(layer):
    config = layer.get_config()
    if config.get("activation") == "elu":
        config["activation"] = "relu"
    return type(layer).from_config(config)


# %%
keras.utils.set_random_seed(SEED)
elu = kerascnn.build("elu_cnn_11", width=1 / 8, dropout=0.0)
twin = keras.models.clone_model(elu, clone_function=with_relu)
twin.set_weights(elu.get_weights())


def shares(model):
    """Mean by standard deviation of what each convolution but the last gives."""
    convolutions = [la for la in model.layers if isinstance(la, layers.Conv2D)][:-1]
    inner = keras.Model(model.input, [la.output for la in convolutions])
    values = map(keras.ops.convert_to_numpy, inner(sample.x.astype("float32")))
    return np.array([v.mean() / v.std() for v in values])


pushed = {"ReLU": shares(twin), "ELU": shares(elu)}
for name, values in pushed.items():
    print(f"{name:<5}" + " ".join(f"{v:5.2f}" for v in values))
average = {name: np.abs(values).mean() for name, values in pushed.items()}
print({name: f"{value:.2f}" for name, value in average.items()})
assert average["ELU"] < average["ReLU"] / 2

# %% tags=["hide-input"]
figure = Figure(figsize=(8, 3.8), layout="constrained")
axes = figure.subplots()
places = np.arange(1, len(pushed["ELU"]) + 1)
axes.bar(places - 0.2, pushed["ReLU"], 0.4, color=ORANGE, label="ReLU", hatch="//")
axes.bar(places + 0.2, pushed["ELU"], 0.4, color=BLUE, label="ELU")
axes.axhline(0, color=INK, lw=1)
axes.set_xticks(places)
axes.set_xlabel("convolution")
axes.set_ylabel("mean / standard deviation")
axes.set_title("Outputs of the same network with ReLU and with ELU, before training")
axes.grid(axis="y", alpha=0.3)
axes.legend()
figure.savefig(FIGURES / "09_elu.png", dpi=150)

# %% [markdown]
# *The picture `09_elu.png` has a pair of bars for each convolution: those of ReLU are
# all well above zero; those of ELU are positive too, but on average less than half as
# high.*
#
# On average over the layers, ELU's means are less than half as far from zero as ReLU's.
# Batch normalisation takes the mean off by computation; here the shape of a curve does
# a part of that. The paper's networks of 11 and 18 convolutions have no normalisation
# layers at all.
#
# ## Summary
#
# - 12 of the 13 methods on the slide lie within the interval of a human's 94 % on 400
#   images. Of the neighbours, only the first three differ by more than chance.
# - Best of five, 100 passes, nine crops, augmentation: a figure is worth as much as the
#   conditions that stand beside it.
# - Fractional max pooling draws its regions; the mean of many passes is an ensemble.
# - A maxout unit learns any convex function, a difference of two any function.
# - A residual block can do nothing, so that depth does no harm.
# - ELU brings the means of a layer closer to zero.
#
# ## Exercises
#
# 1. How many test images does it take to tell 93.57 % from 93.46 %, for two networks
#    measured apart?
# 2. With which weights is a maxout unit of two pieces a ReLU? And |x|?
# 3. A hundred people classify 400 images each; all of them have a true accuracy of
#    93 %. About how many of them will get 95 % or more?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. n = 2·p·(1 - p)·(1.96/0.0011)² = 385,000 images, 39 times those of CIFAR-10.
p = (0.9357 + 0.9346) / 2
n = 2 * p * (1 - p) * (1.96 / 0.0011) ** 2
assert round(n, -3) == 385_000 and round(n / 10_000) == 39

# 2. Pieces 0 and x make ReLU, pieces x and -x make |x|.
two = kerascnn.layers.Maxout(2)
relu = keras.ops.convert_to_numpy(two(np.concatenate([0 * x, x], axis=1)))
both = keras.ops.convert_to_numpy(two(np.concatenate([x, -x], axis=1)))
assert np.array_equal(relu, np.maximum(x, 0)) and np.array_equal(both, np.abs(x))

# 3. 95 % of 400 are 380 images; the number of right answers is binomial. About 7 of
#    100.
chance = sum(math.comb(400, k) * 0.93**k * 0.07 ** (400 - k) for k in range(380, 401))
print(f"95 % or more by chance: {chance:.1%}")
assert round(100 * chance) == 7
print("All numbers of this tutorial hold.")
