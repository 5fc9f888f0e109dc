# %% [markdown]
# # 09 The ranking, and four of its methods taken apart
#
# **What you will learn.** How to read the lecture's ranking (순위) of CIFAR-10 results:
# which of its differences are larger than chance, and what else is hidden in a figure.
# Then four of its methods, each with the one experiment that shows its idea: fractional
# max pooling, maxout, residual connections (잔차 연결) and exponential linear units.
#
# **Time.** Two to three minutes on two cores. The experiments are small: they show what
# an idea does, not what place it deserves. Every number in the prose is asserted.

# %%
import itertools
import math
import os
from pathlib import Path

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

import kerascnn
from kerascnn.comparison import ranking
from kerascnn.statistics import wilson
from zoo.references import HUMAN

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
SEED = 0
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"

# %% [markdown]
# ## The slide
#
# Test accuracy (정확도) on CIFAR-10 in percent, the method, and its name in the zoo.
# Two rows are no networks: the human, and the universum prescription, which is a way to
# train one. Beside the table somebody has written 30 % and 50 % by hand; of what, the
# slide does not say. For comparison: a guess is worth 10 %, the best single layer that
# this project trained, a linear classifier, about 40 %.

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


def published(name):
    return {p.accuracy for p in kerascnn.card(name).published}


for accuracy, method, name in SLIDE:
    print(f"{accuracy:6.2f}  {method:<42}{name or '-'}")
    assert not name or any(abs(p - accuracy) < 0.011 for p in published(name))
assert len(SLIDE) == 14
assert round(kerascnn.card("linear").measured()["accuracy_mean"], -1) == 40

# %% [markdown]
# `kerascnn models` prints the same ranking for the whole zoo, with what each figure is,
# how far this project could check it, and what the network costs:

# %%
table = ranking()
print(table.to_text(width=160))
assert table.cards[0].name == SLIDE[0][2] and len(table.cards) > 60

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
assert (len(methods), len(within)) == (13, 12) and methods[0][0] > high

# %% tags=["hide-input"]
figure = Figure(figsize=(9, 5), layout="constrained")
axes = figure.subplots()
images = [400 if "human" in method else 10_000 for _, method, _ in SLIDE]
ends = [wilson(a / 100, n) for (a, *_), n in zip(SLIDE, images, strict=True)]
look = {"color": [VERMILION if n == 400 else BLUE for n in images]}
axes.hlines(range(14), *100 * np.transpose(ends), lw=2, **look)
axes.scatter([a for a, *_ in SLIDE], range(14), **look)
axes.axvspan(low, high, color=ORANGE, alpha=0.15)
axes.set_yticks(range(len(SLIDE)), [method for _, method, _ in SLIDE])
axes.invert_yaxis()
axes.set_xlabel("accuracy on CIFAR-10 (%), with its 95 % interval")
axes.set_title("The ranking of the slide, with what chance leaves open")
axes.grid(axis="x", alpha=0.3)
figure.savefig(FIGURES / "09_intervals.png", dpi=150)

# %% [markdown]
# *The picture `09_intervals.png`: the human's interval, on 400 images, is about five
# times as wide as the others, and its band covers all rows but the first. The intervals
# of neighbouring methods overlap from the third row on.*
#
# ## Which differences are more than chance?
#
# The others were measured on 10,000 images: ± 0.48 points at 93.5 %. For two networks
# measured apart, the difference has to exceed 1.96·√(2·p·(1 - p)/n) = 0.68 points to be
# more than chance, at the usual 5 %. Of the 12 neighbours on the slide, 2 differ by
# more: the first from the second, and the second from the third. From 94.16 down each
# could have changed places with the next.


# %%
def needed(percent, images):
    """Points by which two accuracies must differ to be more than chance."""
    return 1.96 * math.sqrt(2 * percent * (100 - percent) / images)


other = np.ptp(wilson(0.935, 10_000)) * 100  # the width of an interval
assert round(other / 2, 2) == 0.48 and round((high - low) / other) == 5
assert round(needed(93.5, 10_000), 2) == 0.68
apart = [
    (first, second)
    for (first, _), (second, _) in itertools.pairwise(methods)
    if first - second > needed((first + second) / 2, 10_000)
]
print(f"neighbours that differ by more than chance: {apart}")
assert apart == [(96.53, 95.59), (95.59, 94.16)]
gaps = [a - b for (a, _), (b, _) in itertools.pairwise(methods)]
assert len(gaps) == 12 and sum(gap < 0.19 for gap in gaps) == 6

# %% [markdown]
# (To compare two networks image by image is sharper: tutorial 08 does.) And chance is
# not all that a figure may hide:
#
# - **The best of several.** ResNet-110's 93.57 % is the best of five runs; their mean
#   is 93.39 %, their standard deviation 0.16. The best of five draws from a normal
#   distribution is on average 1.16 standard deviations above the mean, here 0.19
#   points. Of the 12 pairs of neighbours, 6 are less than that apart.
# - **What was done at the test.** Fractional max pooling's 96.53 % is the mean of 100
#   passes; a single pass has 95.50 %. The recurrent network was tested on nine crops of
#   each image.
# - **What was done to the training images.** The All-CNN has 92.75 % with mirrored and
#   shifted images, and 95.59 %, in a larger form, with images that are stretched,
#   turned and recoloured.

# %%
assert {93.57, 93.39} <= published("resnet110")
best_of_five = np.random.default_rng(SEED).normal(size=(200_000, 5)).max(1).mean()
assert abs(best_of_five - 1.163) < 0.01 and round(0.16 * 1.163, 2) == 0.19
assert {96.53, 95.50} <= published("fractional_max_pooling")
assert 92.75 in published("all_cnn_c") and 95.59 in published("all_cnn_large")

# %% [markdown]
# ## Fractional max pooling: pooling that draws lots
#
# Pooling (풀링) of 2x2 halves the map, so a network for 32x32 pixels can have five of
# them at most. Graham's idea: shrink by less, for example by the cube root of 2, so
# that three poolings make one halving. Along each axis, regions of 1 and 2 pixels take
# turns, and *which* are of 2 is drawn anew for every image and every pass.

# %%
FractionalMaxPooling2D = kerascnn.layers.FractionalMaxPooling2D
sides = [32]
for _ in range(3):
    layer = FractionalMaxPooling2D(ratio=2 ** (1 / 3))
    sides.append(layer.compute_output_shape((None, sides[-1], sides[-1], 3))[1])
assert sides == [32, 25, 20, 16]

# %% [markdown]
# From 32 to 25 pixels it takes 25 regions, 7 of 2 pixels and 18 of 1. Here are three
# draws for the same image. (The picture shows regions that lie side by side; in the
# author's program, and by default here, regions overlap by a pixel.)

# %%
shapes = kerascnn.load_data("shapes", images=200, seed=SEED)
sample = shapes.train.sample(6, classes=10, seed=SEED)
layer = FractionalMaxPooling2D(output_size=25, regions="disjoint", seed=SEED)
layer.build((None, 32, 32, 3))
edges = []  # of each draw, where its rows begin, and its columns
for first, last in itertools.chain.from_iterable(layer.draw(1) for _ in range(3)):
    first, last = (keras.ops.convert_to_numpy(ends)[0] for ends in (first, last))
    assert np.bincount(last - first + 1).tolist() == [0, 18, 7]
    edges.append(first)
different = len({tuple(edge) for edge in edges})
print(f"{different} different draws among 6 (rows and columns of three images)")
assert different > 1

# %% tags=["hide-input"]
figure = Figure(figsize=(10, 3.9), layout="constrained")
figure.suptitle("Fractional max pooling, 32 to 25 pixels: three draws (the middle)")
panels = figure.subplots(1, 3)
for axes, rows, columns in zip(panels, edges[::2], edges[1::2], strict=True):
    axes.imshow(sample.x[0], interpolation="nearest")
    axes.hlines(rows - 0.5, 0, 32, color="white", lw=1)
    axes.vlines(columns - 0.5, 0, 32, color="white", lw=1)
    axes.set(xlim=(7.5, 23.5), ylim=(23.5, 7.5), xlabel="column (pixels)")
panels[0].set_ylabel("row (pixels)")
figure.savefig(FIGURES / "09_regions.png", dpi=150)

# %% [markdown]
# *The picture `09_regions.png`: most cells under the grid of white lines are one pixel
# wide, every fourth or so two; which ones differs from draw to draw.*
#
# A network with such poolings gives another answer in every pass, as if it were each
# time a slightly different network with the same weights. So one can ask it several
# times and take the mean of the probabilities. What does that gain? A small network
# with four poolings by √2, from 24 pixels to 6, on 4,500 shapes:

# %%
PASSES = 4 if SMOKE else 16
data = kerascnn.load_data("shapes", images=200 if SMOKE else 5_000, image_size=24)
three = {"kernel_size": 3, "padding": "same", "kernel_initializer": "he_normal"}


def fit(model, images, classes, epochs, batch_size, optimizer, rate, **options):
    """Train with a rate that falls to 0; return the loss of each epoch."""
    falling = keras.optimizers.schedules.CosineDecay
    rate = falling(rate, epochs * math.ceil(len(images) / batch_size))
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer(rate, **options), loss, run_eagerly=SMOKE)
    return model.fit(images, classes, batch_size, epochs, verbose=0).history["loss"]


keras.utils.set_random_seed(SEED)
network = keras.Sequential([keras.Input((24, 24, 3)), layers.Rescaling(1 / 127.5, -1)])
for filters in (16, 24, 32, 48):
    network.add(layers.Conv2D(filters, activation="relu", **three))
    network.add(FractionalMaxPooling2D(ratio=2**0.5, mode="random", seed=SEED))
assert network.output_shape == (None, 6, 6, 48)
network.add(layers.Flatten())
network.add(layers.Dense(10, activation="softmax"))
seen = data.train.x[: 32 if SMOKE else None], data.train.y[: 32 if SMOKE else None]
fit(network, *seen, 1 if SMOKE else 8, 64, keras.optimizers.Adam, 0.003)

said = np.stack([network.predict(data.test.x, 250, verbose=0) for _ in range(PASSES)])
by_passes = {}
for k in (1, 2, 4, 8, 16)[: PASSES.bit_length()]:
    means = said.reshape(PASSES // k, k, *said.shape[1:]).mean(axis=1)
    by_passes[k] = 100 * (means.argmax(axis=-1) == data.test.y).mean()
    print(f"mean of {k:>2} passes: {by_passes[k]:.1f} % of {len(data.test):,} images")

# %% [markdown]
# A single pass is worth much less than the mean of 16: more than 6 points lie between
# them here, and each doubling adds some. That is what stands behind the 100 passes of
# the slide's first row. The price is paid at every prediction, 100 times over.
#
# `kerascnn.evaluate(network, data, passes=16)` takes such a mean by itself.

# %%
assert kerascnn.evaluate(network, data.test, passes=PASSES).passes == PASSES
if not SMOKE:
    assert by_passes[16] > by_passes[1] + 6
    assert by_passes[1] < by_passes[2] < by_passes[4] < by_passes[8]

# %% [markdown]
# ## Maxout: an activation function that is learned
#
# ReLU is max(0, w·x): the larger of two linear functions, one of which is 0. Maxout
# takes the maximum of k linear functions, all of them learned. The maximum of linear
# functions is convex (볼록): a chain of straight pieces that only ever bends upwards.
# So a maxout unit can imitate any convex function, with enough pieces as closely as one
# likes, and no other.
#
# Four functions on -1…1: x², |x| and eˣ are convex, -x² is not. Units of 2 and of 4
# pieces learn each of them, from 8 starts, of which the best is kept: descent can leave
# pieces unused, below the others everywhere, where they get no gradient.

# %%
x = np.linspace(-1, 1, 201, dtype=np.float32)[:, None]
FUNCTIONS = {"x²": x**2, "|x|": np.abs(x), "eˣ": np.exp(x), "-x²": -(x**2)}
targets = np.repeat(np.concatenate([*FUNCTIONS.values()], axis=1), 8, axis=1)
learned = {}
for pieces in (2, 4):
    keras.utils.set_random_seed(SEED)
    steps = 2 if SMOKE else 1_500
    uniform = keras.initializers.RandomUniform
    linear = layers.Dense(32 * pieces, None, True, uniform(-2, 2), uniform(-1, 1))
    maxout = kerascnn.layers.Maxout(pieces)
    units = keras.Sequential([keras.Input((1,)), linear, maxout])
    rate = keras.optimizers.schedules.CosineDecay(0.05, steps)
    units.compile(keras.optimizers.Adam(rate), "mse", run_eagerly=SMOKE)
    often = (np.tile(values, (steps, 1)) for values in (x, targets))
    units.fit(*often, batch_size=len(x), shuffle=False, verbose=0)
    found = keras.ops.convert_to_numpy(units(x)).astype(float)
    errors = np.sqrt(np.mean((found - targets) ** 2, axis=0)).reshape(4, 8)
    for i, name in enumerate(FUNCTIONS):
        curve = found[:, 8 * i + errors[i].argmin()]
        learned[name, pieces] = curve, errors[i].min()
        assert np.diff(curve, n=2).min() > -1e-4  # convex, trained or not
        print(f"{name} with {pieces} pieces: error {errors[i].min():.3f}")

# %% [markdown]
# |x| is two straight pieces, and two pieces learn it exactly. x² on -1…1, cut into k
# equal pieces, leaves a root mean square error of 0.298/k² at best: 0.075 with two, and
# less than half of that with four. For -x² the best that is convex is a constant: an
# error of 0.298, whatever the number of pieces, and that is what is found. Whoever
# wants -x² has to subtract one maxout unit from another; with that, any continuous
# function can be had.

# %%
# The error of a straight line fitted to x² over a length of h is h²/√180; h = 2/k.
assert round(4 / math.sqrt(180), 3) == 0.298
assert round(math.sqrt(4 / 45), 3) == 0.298  # the standard deviation of x² on -1…1
if not SMOKE:
    assert learned["|x|", 2][1] < 0.005 and 0.07 < learned["x²", 2][1] < 0.085
    assert learned["x²", 4][1] < learned["x²", 2][1] / 2
    assert all(0.29 < learned["-x²", pieces][1] < 0.32 for pieces in (2, 4))

# %% tags=["hide-input"]
figure = Figure(figsize=(10, 3.4), layout="constrained")
figure.suptitle("What a maxout unit can learn: convex functions, and no other")
panels = figure.subplots(1, 4)
for axes, (name, values) in zip(panels, FUNCTIONS.items(), strict=True):
    axes.plot(x, values, color="#333333", lw=4, alpha=0.3, label="wanted")
    axes.plot(x, learned[name, 2][0], "--", color=VERMILION, label="2 pieces")
    axes.plot(x, learned[name, 4][0], color=BLUE, label="4 pieces")
    axes.set(title=name, xlabel="input")
    axes.grid(alpha=0.3)
panels[0].set_ylabel("output of the unit")
panels[0].legend(fontsize=8)
figure.savefig(FIGURES / "09_maxout.png", dpi=150)

# %% [markdown]
# *The picture `09_maxout.png` has four panels. In three, chains of straight pieces lie
# on the grey curve or close to it; in the last, the wanted curve is an arch, and both
# chains are a flat line across it. Where the two agree, only the second can be seen.*
#
# ## ResNet: what if a layer has nothing to add?
#
# A deeper network can do all that a shallower one can, if it passes its input through
# the layers that it does not need. But convolutions with random weights pass nothing
# through: doing nothing has to be learned. He and his colleagues turned this round: a
# block computes x + F(x), with F two convolutions. If F is 0, the block does nothing.
#
# Batch normalisation (배치 정규화) brings every channel to mean 0 and variance 1 over
# the batch, then multiplies it by a factor and adds an offset, which are learned and
# start from 1 and 0 (tutorial 11 shows what that is good for). Start the factor from 0
# after the second convolution of every block, so that F = 0: what is left of 32
# convolutions with shortcuts, as the x in x + F(x) is called, and of 32 without?

# %%
DEEP = 4 if SMOKE else 32


def stack(depth, residual, factor):
    """Build so many 3x3 convolutions on 8x8 maps, with or without shortcuts.

    `factor`, "zeros" or "ones": where those after every second convolution start.
    """
    keras.utils.set_random_seed(SEED)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(16, 5, 4, padding="same", activation="relu")(x)
    for _ in range(depth // 2):
        y = layers.Conv2D(16, use_bias=False, **three)(x)
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(y))
        y = layers.Conv2D(16, use_bias=False, **three)(y)
        y = layers.BatchNormalization(momentum=0.9, gamma_initializer=factor)(y)
        x = layers.ReLU()(x + y if residual else y)
    x = layers.Flatten()(x)
    # Starting from 0, all networks start from the loss of a guess.
    x = layers.Dense(10, activation="softmax", kernel_initializer="zeros")(x)
    return keras.Model(image, x)


def features(model):
    inner = keras.Model(model.input, model.layers[-2].output)
    return inner.predict(sample.x.astype("float32"), verbose=0)


plain, residual = (features(stack(DEEP, way, "zeros")) for way in (False, True))
assert np.ptp(plain, 0).max() == 0 and residual.std(0).max() > 0.1
# The same as the first convolution, and no more.
assert np.array_equal(residual, features(stack(0, True, "zeros")))

# %% [markdown]
# Without shortcuts all images have become alike: nothing of the input arrives. With
# them, the output is exactly that of the first convolution alone; what the 32 learn is
# added to that. Now let them learn: the depths 8 and 32, with and without shortcuts, 60
# images by heart in the same 80 steps. The residual networks start from factors of 0,
# as has become usual since; the plain ones from 1, since from 0 they could not start at
# all. (The paper has 1 everywhere, and averages each map at the end, which tempers what
# the blocks add up.)

# %%
curves = {}
for kind, depth in itertools.product(("plain", "residual"), (8, DEEP)):
    model = stack(depth, kind == "residual", "zeros" if kind == "residual" else "ones")
    plan = (1, 60) if SMOKE else (40, 30)  # epochs, images a step
    sgd = keras.optimizers.SGD
    losses = fit(model, sample.x, sample.y, *plan, sgd, 0.02, momentum=0.9)
    curves[f"{depth} {kind}"] = losses
    print(f"{depth} {kind}: loss {losses[0]:.2f} to {losses[-1]:.3f}")

# %% [markdown]
# The deep plain network does worse than the shallow plain one, on the images that it is
# trained on: this is not overfitting (과적합), it is a failure to learn, and it is what
# the paper begins with. Its loss after the 80 steps is more than twice that of any of
# the three others, which is below 0.3. With shortcuts the deep network learns the
# images. At depth 8 the plain network is the quicker one: shortcuts are for depth.

# %%
final = {name: losses[-1] for name, losses in curves.items()}
if not SMOKE:
    deep = final.pop("32 plain")
    assert deep > 2 * max(final.values()) and max(final.values()) < 0.3
    assert len(final) == 3 and final["8 plain"] < final["8 residual"]

# %% tags=["hide-input"]
figure = Figure(figsize=(8, 4.2), layout="constrained")
axes = figure.subplots()
for name, losses in curves.items():
    colour = BLUE if "residual" in name else VERMILION
    style = "-" if name.startswith(str(DEEP)) else "--"
    axes.plot(range(1, len(losses) + 1), losses, style, color=colour, label=name)
axes.set(xlabel="epoch (two steps)", ylabel="cross-entropy, training images (nats)")
axes.set_title("Convolutions in a row, plain and with residual connections")
axes.legend(title="convolutions")
figure.savefig(FIGURES / "09_residual.png", dpi=150)

# %% [markdown]
# *In the picture `09_residual.png` the plain networks are orange, the residual ones
# blue, the deep ones solid. The loss of the deep plain network stays near the top.*
#
# ## ELU: a mean of zero
#
# What comes out of a ReLU is never negative, so each unit of the next layer gets a push
# in one direction from all of its inputs at once. The exponential linear unit is x
# above 0, as ReLU is, and eˣ - 1 below, between 0 and -1, which pulls the mean back.
#
# For inputs from the standard normal distribution the means can be worked out: 0.399,
# which is 1/√(2π), for ReLU, 0.161 for ELU.

# %%
below = math.exp(0.5) * 0.5 * math.erfc(1 / math.sqrt(2)) - 0.5  # of eˣ - 1, x < 0
assert round(1 / math.sqrt(2 * math.pi), 3) == 0.399
assert round(1 / math.sqrt(2 * math.pi) + below, 3) == 0.161

# %% [markdown]
# Now in a network: the paper's, `elu_cnn_11`, at an eighth of its width, with ELU and
# with ReLU in its place. After each convolution: the mean of all values, as a share of
# their standard deviation, over 60 images, before training.

# %%
keras.utils.set_random_seed(SEED)
network = kerascnn.build("elu_cnn_11", width=1 / 8, dropout=0.0)
hidden = [la for la in network.layers if isinstance(la, layers.Conv2D)][:-1]
shares = {}
for name in ("elu", "relu"):
    for layer in hidden:
        layer.activation = keras.activations.get(name)
    inner = keras.Model(network.input, [layer.output for layer in hidden])
    values = inner.predict(sample.x.astype("float32"), verbose=0)
    shares[name] = np.array([v.mean() / v.std() for v in values])
    print(f"{name:<5}" + " ".join(f"{share:5.2f}" for share in shares[name]))
assert shares["relu"].min() > 0.4 and shares["elu"].min() > 0
assert shares["elu"].mean() < shares["relu"].mean() / 2

# %% [markdown]
# The means of ReLU are all well above zero; those of ELU are positive too, but on
# average over the layers less than half as far from it. Batch normalisation takes the
# mean off by computation; here the shape of a curve does a part of that. The paper's
# networks of 11 and 18 convolutions have no normalisation layers at all.
#
# ## Summary
#
# - 12 of the 13 methods on the slide lie within the interval of a human's 94 % on 400
#   images. Of the neighbours, only the first three differ by more than chance.
# - Best of five, 100 passes, nine crops, augmentation: a figure is worth as much as the
#   conditions that stand beside it.
# - Fractional max pooling draws its regions; the mean of many passes is an ensemble.
# - A maxout unit learns any convex function, a difference of two any function. A
#   residual block can do nothing, so depth does no harm. ELU brings means closer to 0.
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
n = 2 * 0.93515 * (1 - 0.93515) * (1.96 / 0.0011) ** 2
assert round(n, -3) == 385_000 and round(n / 10_000) == 39

# 2. Pieces 0 and x make ReLU, pieces x and -x make |x|.
two = kerascnn.layers.Maxout(2)
relu = keras.ops.convert_to_numpy(two(np.concatenate([0 * x, x], axis=1)))
both = keras.ops.convert_to_numpy(two(np.concatenate([x, -x], axis=1)))
assert np.array_equal(relu, np.maximum(x, 0)) and np.array_equal(both, np.abs(x))

# 3. 95 % of 400 are 380 images; right answers are binomial. About 7 of 100 people.
chance = sum(math.comb(400, k) * 0.93**k * 0.07 ** (400 - k) for k in range(380, 401))
assert round(100 * chance) == 7
print("All numbers of this tutorial hold.")
