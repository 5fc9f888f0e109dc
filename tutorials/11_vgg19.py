# %% [markdown]
# # 11 VGG19: what depth gains, and what it costs
#
# **What you will learn.** Why VGG uses filters of 3x3 only; where the 143,667,240
# parameters (매개변수) of VGG19 are; why 16 convolutions (합성곱) in a row learn from
# some starts only, and how far the start decides; and how batch normalisation (배치
# 정규화) makes it matter much less.
#
# **Time.** A minute or two on two cores. The networks that are trained here are an
# eighth as wide as the paper's, and they have to learn 60 images only: the question is
# not how good they get, but whether they learn at all.
#
# Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale
# Image Recognition", ICLR 2015, arXiv 1409.1556. Every number in the prose is asserted.

# %%
import math
import os
import time
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import arithmetic
from kerascnn.environment import hardware
from zoo.vgg import BLOCKS, DENSE

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
SEED = 0
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"

# %% [markdown]
# ## Two 3x3 see 5x5
#
# Put two convolutions with filters (필터) of 3x3 one after the other. A value of the
# second is a sum over 3x3 values of the first, and each of these a sum over 3x3 pixels:
# together, 5x5 pixels. Three in a row see 7x7. The formula, and then the thing itself:
# an image with a single bright pixel, and filters of ones.

# %%
assert arithmetic.receptive_field([(3, 1), (3, 1)]) == 5
assert arithmetic.receptive_field([(3, 1), (3, 1), (3, 1)]) == 7

pixel = np.zeros((1, 9, 9, 1), np.float32)
pixel[0, 4, 4] = 1
options = {"padding": "same", "kernel_initializer": "ones"}
once = keras.layers.Conv2D(1, 3, **options)
twice = keras.layers.Conv2D(1, 3, **options)
spread = keras.ops.convert_to_numpy(twice(once(pixel)))[0, :, :, 0].astype(int)
print(spread)
assert (spread > 0).sum() == 25 and (spread[2:7, 2:7] > 0).all()
assert spread[4].tolist() == [0, 0, 3, 6, 9, 6, 3, 0, 0]

# %% [markdown]
# The pixel has reached 25 values, 5x5 of them. (The one in the middle counts nine
# times: nine ways lead to it. A real 5x5 filter could weigh its 25 pixels freely, so
# the two are not the same; they look at the same pixels.)
#
# With C channels (채널) in and out, a 5x5 filter bank has 25·C² weights, two of 3x3
# have 2·9·C² = 18·C²: 28 % fewer. A 7x7 has 49·C², three of 3x3 have 27·C²: 45 % fewer.
# And there is one ReLU after each: two or three bends in place of one.

# %%
five = arithmetic.convolution_parameters(5, 64, 64)
seven = arithmetic.convolution_parameters(7, 64, 64)
three = arithmetic.convolution_parameters(3, 64, 64)
print(f"C = 64: 5x5 {five:,}, two 3x3 {2 * three:,}; 7x7 {seven:,}, ", end="")
print(f"three 3x3 {3 * three:,}")
assert round(100 * (1 - 2 * three / five)) == 28
assert round(100 * (1 - 3 * three / seven)) == 45

# %% [markdown]
# ## 143,667,240 parameters, and where they are
#
# VGG19 is five blocks of 3x3 convolutions with a pooling (풀링) after each, then three
# fully-connected layers. That makes 16 + 3 = 19 layers with weights (가중치), which is
# the 19 of its name. One table holds all of it:

# %%
blocks = BLOCKS["vgg19"]
assert blocks == ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)) and DENSE == (
    4_096,
    4_096,
)
names, parameters, macs = [], [], []
channels, side, stack = 3, 224, []
for number, (count, filters) in enumerate(blocks, start=1):
    for place in range(1, count + 1):
        names.append(f"block{number}_conv{place}")
        parameters.append(
            arithmetic.convolution_parameters(3, channels, filters, bias=True)
        )
        macs.append(arithmetic.convolution_macs(side, 3, channels, filters))
        channels = filters
        stack.append((3, 1))
    side = arithmetic.pooling_size(side, 2)
    stack.append((2, 2))
inputs = side * side * channels
assert (side, channels, inputs) == (7, 512, 25_088)
for name, units in (("fc1", 4_096), ("fc2", 4_096), ("fc", 1_000)):
    names.append(name)
    parameters.append(arithmetic.dense_parameters(inputs, units, bias=True))
    macs.append(arithmetic.dense_macs(inputs, units))
    inputs = units
for name, count, work in zip(names, parameters, macs, strict=True):
    print(f"{name:<14}{count!s:<34}{work:>16,} multiply-accumulates")
assert len(names) == 19
assert sum(parameters) == kerascnn.card("vgg19_imagenet").trainable == 143_667_240
assert sum(macs) == kerascnn.card("vgg19_imagenet").macs == 19_632_062_464

# %% [markdown]
# Of the 143,667,240 parameters, the 16 convolutions have 20,024,384, which is 14 %. The
# first fully-connected layer alone has 102,764,544, which is 72 %: it reads 7·7·512 =
# 25,088 numbers and gives each of its 4,096 units a weight for every one of them. With
# the work it is the other way round: the convolutions do 99.4 % of the
# multiplications. Weights are where nothing is shared; work is where much is shared.

# %%
convolutional = sum(parameters[:16])
assert convolutional == 20_024_384 and parameters[16] == 102_764_544
assert round(100 * convolutional / sum(parameters)) == 14
assert round(100 * parameters[16] / sum(parameters)) == 72
assert round(100 * sum(macs[:16]) / sum(macs), 1) == 99.4

# %% tags=["hide-input"]
figure = Figure(figsize=(10, 5), layout="constrained")
figure.suptitle("VGG19 at 224x224: weights and work lie at opposite ends")
for axes, values, unit, title in (
    (figure.add_subplot(2, 1, 1), parameters, 1e6, "parameters (millions)"),
    (figure.add_subplot(2, 1, 2), macs, 1e9, "multiply-accumulates (billions)"),
):
    colours = [BLUE] * 16 + [ORANGE] * 3
    hatches = [""] * 16 + ["//"] * 3
    axes.bar(range(19), [v / unit for v in values], color=colours, hatch=hatches)
    axes.set_ylabel(title, fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_xticks([])
axes.set_xticks(range(19), names, rotation=45, ha="right", fontsize=8)
axes.set_xlabel("layer: convolutions plain, fully-connected layers hatched")
figure.savefig(FIGURES / "11_where.png", dpi=150)

# %% [markdown]
# *The picture `11_where.png` has two rows of bars for the 19 layers. In the upper row,
# the parameters, one bar towers over all others: fc1, with 103 million. In the lower
# row, the multiplications, the convolutions of the first four blocks are high, but for
# the very first, which reads 3 channels only; it and the three fully-connected layers
# can hardly be seen.*
#
# After the last pooling, a value's receptive field (수용 영역) is 268 pixels wide, more
# than the image has. For CIFAR-10's 32x32 pixels, five poolings leave 1x1x512, and one
# layer of 512·10 weights is enough: 20,029,514 parameters.

# %%
assert arithmetic.receptive_field(stack) == 268 > 224
assert convolutional + 512 * 10 + 10 == kerascnn.card("vgg19").trainable == 20_029_514

# %% [markdown]
# ## The signal through 16 layers
#
# A convolution multiplies its input by weights that are drawn at random before
# training. Draw them too small, and each layer makes the signal a little smaller; 16
# layers make it vanish. How large is right?
#
# A filter that reads n values (n = 9·C_in: the fan-in) with weights of variance v turns
# values of mean square s into sums of variance n·v·s. ReLU then sets half of the sums
# to 0, which halves the mean square: n·v·s/2. So the signal keeps its size if v = 2/n.
# That is the initialisation (초기화) of He. Glorot's, the default of Keras, has v =
# 2/(n_in + n_out), which for equally wide layers is 1/n, half as much: the signal falls
# by √2 = 1.41 a layer, over 16 layers by 2⁸ = 256.

# %%
assert math.isclose(math.sqrt(2) ** 16, 256)

# %% [markdown]
# So much for paper; now the built network. It is `kerascnn.vgg19` at an eighth of its
# width, with 60 images of the built-in shapes, six of each class. Both initialisations
# draw the same random numbers here, and scale them differently. We measure the root
# mean square of what comes out of each convolution.

# %%
WIDTH = 1 / 16 if SMOKE else 1 / 8
data = kerascnn.load_data("shapes", images=200, seed=SEED)
sample = data.train.sample(6, classes=10, seed=SEED)
images, classes = sample.x, sample.y
assert images.shape == (60, 32, 32, 3) and (np.bincount(classes) == 6).all()


def network(initializer, builder=kerascnn.vgg19):
    """Build a VGG19 and draw its filters anew, each layer with a seed of its own."""
    keras.utils.set_random_seed(SEED)
    model = builder(width=WIDTH)
    for seed, layer in enumerate(convolutions(model)):
        layer.kernel.assign(initializer(seed=seed)(layer.kernel.shape))
    return model


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def signal(model):
    """Root mean square of the values after each convolution and its ReLU."""
    names = [layer.name for layer in model.layers]
    ends = []
    for layer in convolutions(model):
        normalised = f"{layer.name}_relu" in names
        ends.append(model.get_layer(layer.name + "_relu" * normalised).output)
    # training=True: batch normalisation uses the batch's own mean and variance.
    values = keras.Model(model.input, ends)(images.astype("float32"), training=True)
    return np.array(
        [np.sqrt(np.mean(keras.ops.convert_to_numpy(v) ** 2.0)) for v in values]
    )


Glorot, He = keras.initializers.GlorotNormal, keras.initializers.HeNormal
starts = {
    "Glorot": network(Glorot),
    "He": network(He),
    "Glorot, batch normalisation": network(Glorot, kerascnn.vgg19_bn),
    "He, batch normalisation": network(He, kerascnn.vgg19_bn),
}
signals = {name: signal(model) for name, model in starts.items()}
for name, values in signals.items():
    print(f"{name:<28}" + " ".join(f"{v:.2g}" for v in values))

# %% [markdown]
# From Glorot's start the signal falls, layer by layer, from 0.21 to 0.00005. From He's
# it stays within a factor of 20. (It falls a little at the end, where the maps have 4x4
# and 2x2 pixels and many weights of a 3x3 filter lie on the zeros of the padding; the
# formula knows nothing of borders.)
#
# ReLU networks without biases scale: multiply one layer's weights by a, and its output
# and all later ones are multiplied by a. So the ratio of the two signals after 16
# layers can be worked out without any network: each layer contributes the factor
# √(n_in/(n_in + n_out)). The product is 1/637 at this width, and 1/1,572 at the
# paper's, and the measured ratio agrees with it.


# %%
def glorot_by_he(width):
    """Ratio of the signals after 16 convolutions, by arithmetic alone."""
    ratio, channels = 1.0, 3
    for count, filters in blocks:
        for _ in range(count):
            filters_here = max(1, round(filters * width))
            ratio *= math.sqrt(channels / (channels + filters_here))
            channels = filters_here
    return ratio


measured = signals["Glorot"][-1] / signals["He"][-1]
print(f"measured 1/{1 / measured:.1f}, worked out 1/{1 / glorot_by_he(WIDTH):.1f}")
assert math.isclose(measured, glorot_by_he(WIDTH), rel_tol=1e-3)
assert round(1 / glorot_by_he(1 / 8)) == 637 and round(1 / glorot_by_he(1)) == 1_572
if not SMOKE:
    assert 0.15 < signals["Glorot"][0] < 0.27
    assert 0.00003 < signals["Glorot"][-1] < 0.00008
    assert signals["He"].max() / signals["He"].min() < 20

# %% [markdown]
# ## What follows from it
#
# If next to nothing arrives at the last layer, it answers next to the same for every
# image: all ten probabilities are 0.1 to four digits, and the loss (손실) is ln 10 =
# 2.3026, that of a guess. And the gradient (기울기), which has to take the same way
# back, through the same small weights, is as faint.

# %%
firm = starts["Glorot"].predict(images, verbose=0)
print(f"Glorot: probabilities from {firm.min():.6f} to {firm.max():.6f}")
assert SMOKE or np.abs(firm - 0.1).max() < 1e-4
chance = math.log(10)
loss = -np.log(firm[np.arange(len(classes)), classes]).mean()
assert round(chance, 4) == 2.3026 and abs(loss - chance) < 1e-3

# %% [markdown]
# ## Batch normalisation
#
# Batch normalisation, published some months after VGG, puts every channel of every
# convolution to mean 0 and variance 1 over the batch before ReLU. After ReLU, a normal
# distribution of variance 1 has a root mean square of √(1/2) = 0.71. That is what is
# measured after each of the 16 layers, and from either start: a scale that is divided
# out again cannot matter.

# %%
normalised = signals["Glorot, batch normalisation"]
assert round(math.sqrt(0.5), 2) == 0.71
assert SMOKE or (np.abs(normalised - math.sqrt(0.5)) < 0.06).all()
assert np.allclose(normalised, signals["He, batch normalisation"], rtol=0.02)

# %% tags=["hide-input"]
figure = Figure(figsize=(8, 4.5), layout="constrained")
axes = figure.subplots()
depth = np.arange(1, 17)
styles = {
    "Glorot": (VERMILION, "o-"),
    "He": (BLUE, "s-"),
    "Glorot, batch normalisation": (GREEN, "^--"),
}
for name, (colour, style) in styles.items():
    axes.plot(depth, signals[name], style, color=colour, label=name, markersize=5)
axes.set_yscale("log")
axes.set_xticks(depth)
axes.set_xlabel("convolution, from the first to the sixteenth")
axes.set_ylabel("root mean square of its values")
axes.set_title(f"VGG19 before training, {WIDTH:g} of the width: the signal on its way")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(FIGURES / "11_signal.png", dpi=150)

# %% [markdown]
# *The picture `11_signal.png` has three curves over the 16 convolutions, on a
# logarithmic axis. Glorot's falls from layer to layer, over more than three powers of
# ten; He's sinks by one power of ten, most of it at the end; with batch normalisation
# the curve is flat at 0.7.*
#
# ## Do they learn?
#
# The lowest hurdle there is: to learn 60 images by heart. The same images, optimizer
# and 80 steps for each; the last column of the output is the accuracy (정확도) on these
# very images.

# %%
EPOCHS, BATCH = (1, 60) if SMOKE else (40, 30)
losses = {}
for name in list(styles)[: 1 if SMOKE else 3]:
    model = starts[name]
    model.compile(
        keras.optimizers.SGD(0.02, momentum=0.9, clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=SMOKE,
    )
    keras.utils.set_random_seed(SEED)
    begin = time.perf_counter()
    history = model.fit(images, classes, BATCH, EPOCHS, verbose=0).history
    losses[name] = history["loss"]
    print(
        f"{name:<28} loss {history['loss'][0]:.3f} to {history['loss'][-1]:.3f}, "
        f"{time.perf_counter() - begin:>3.0f} s, {history['accuracy'][-1]:>4.0%}"
    )
print(f"seed {SEED}, {hardware()}")
if not SMOKE:
    assert min(losses["Glorot"]) > 2.29
    assert min(losses["He"]) < 1.5
    assert losses["Glorot, batch normalisation"][-1] < 0.1

# %% tags=["hide-input"]
figure = Figure(figsize=(8, 4.5), layout="constrained")
axes = figure.subplots()
for name, values in losses.items():
    colour, style = styles[name]
    epochs = np.arange(1, EPOCHS + 1)
    axes.plot(epochs, values, style, color=colour, label=name, markersize=4)
axes.axhline(chance, color="#333333", linestyle=":", label="a guess: ln 10")
axes.set_xlabel("epoch (two steps)")
axes.set_ylabel("cross-entropy on the training images (nats)")
axes.set_title("VGG19 at an eighth of the width learns 60 images by heart, or not")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(FIGURES / "11_learning.png", dpi=150)

# %% [markdown]
# *The picture `11_learning.png` has the loss of the three networks over 40 epochs. From
# Glorot's start it lies on the dotted line of a guess; from He's it leaves the line
# after some steps and comes down unevenly; with batch normalisation it begins higher,
# falls at once and has reached 0 before the middle.*
#
# From Glorot's start the loss is still that of a guess, above 2.29, after 80 steps.
# From He's it has fallen below 1.5. With batch normalisation it is below 0.1, although
# its filters are Glorot's.
#
# VGG's authors had neither He's initialisation nor batch normalisation. They trained
# the network of 11 layers first, and began the deeper ones with its first layers; later
# they found that a random start by Glorot's rule can do as well. A faint signal is not
# a proof that nothing will ever be learned: a longer plateau, a higher rate or another
# optimizer may end it. But it is a reason for a deep plain network to stall, and one
# that can be seen before the first step.
#
# ## Summary
#
# - Two 3x3 see 5x5 with 28 % fewer weights, three see 7x7 with 45 % fewer.
# - VGG19 has 143,667,240 parameters: 72 % in the first fully-connected layer, 14 % in
#   the 16 convolutions, which do 99.4 % of the work.
# - Without a right start the signal dies on the way: 1/637 of He's from Glorot's, at an
#   eighth of the width. Weights of variance 2/n_in keep it.
# - Batch normalisation sets the size of the signal anew after every layer, so that the
#   start matters little.
#
# ## Exercises
#
# 1. How many parameters would VGG19 have if fc1 read the mean of each of the 512 maps
#    instead of all 25,088 values?
# 2. A network has 50 equally wide layers with weights of variance 1/n_in and ReLU. By
#    what factor does the signal fall? And with 2/n_in?
# 3. Without activation functions (활성화 함수), which variance keeps the signal? Check
#    it on 16 dense layers of 256 units.
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. fc1 would have 512·4096 + 4096 parameters: 100,663,296 fewer, which leaves
#    43,003,944.
assert (25_088 - 512) * 4_096 == 100_663_296
assert 143_667_240 - 100_663_296 == 43_003_944

# 2. By √2^50 = 2^25, 33.6 million: float32 survives that, learning does not. With
#    2/n_in the signal keeps its size.
assert math.isclose(math.sqrt(2) ** 50, 2**25) and 2**25 == 33_554_432

# 3. 1/n_in, which is Glorot's for equally wide layers: it was derived for networks
#    whose activation is nearly linear around 0.
values = np.random.default_rng(SEED).normal(size=(200, 256))
before = np.sqrt(np.mean(values**2))
for seed in range(16):
    weights = Glorot(seed=seed)((256, 256))
    values = values @ keras.ops.convert_to_numpy(weights).astype(float)
after = np.sqrt(np.mean(values**2))
print(f"linear layers: {before:.2f} before, {after:.2f} after 16")
assert 0.7 < after / before < 1.4
print("All numbers of this tutorial hold.")
