# %% [markdown]
# # 02 An MLP on images: many weights, and no idea of a neighbour
#
# **What you will learn.** How an image enters a multi-layer perceptron (다층 퍼셉트론,
# MLP): stretched into a vector (벡터) of 3,072 numbers; how many units (유닛) and how
# many weights (가중치) that takes, which are two different counts on two slides; and an
# experiment that shows what "spatial structure is lost" (공간 구조의 손실) means: an
# MLP learns just as well when the pixels of all images are shuffled in the same way,
# and a convolutional network (합성곱 신경망, CNN) does not.
#
# **Time.** Two to three minutes on two cores: four networks are trained.
#
# Every number below is computed, and every number in the prose is asserted: if this
# script runs to its end, its text is true.

# %%
import dataclasses
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import arithmetic
from kerascnn.data import Images
from kerascnn.environment import hardware

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, INK = "#0072B2", "#E69F00", "#333333"  # Okabe and Ito's

# %% [markdown]
# ## From a tensor to a vector
#
# A fully-connected layer (완전 연결층) takes a list of numbers. An image is a tensor
# (텐서) of 32·32·3 numbers, so it has to be stretched out first (flatten, 평탄화):

# %%
inputs = arithmetic.product(32, 32, 3)
print(inputs)
assert inputs == 1_024 * 3 == 3_072
tensor = np.arange(2 * 2 * 3).reshape(1, 2, 2, 3)
vector = np.asarray(keras.layers.Flatten()(tensor))
assert vector.tolist() == [list(range(12))]  # row by row, the channels together

# %% [markdown]
# ## Units and weights
#
# The slide takes an MLP with two hidden layers (은닉층) of h1 and h2 units, and 10
# classes. One slide counts 3072 + h1 + h2 + 10. That is the number of *units*, the
# circles of the drawing. What has to be learned, stored and multiplied is the lines
# between them, the weights: every unit has one for every unit of the layer before, and
# so another slide counts 3072·h1 + h1·h2 + h2·10. For h1 = 512 and h2 = 256 there are
# 3,850 units and 1,706,496 weights:

# %%
H1, H2 = 512, 256
units = arithmetic.mlp_units(3_072, H1, H2, 10)
weights = arithmetic.mlp_parameters(3_072, H1, H2, 10)
print(f"units:   {units}")
print(f"weights: {weights}")
assert units == 3_072 + H1 + H2 + 10 == 3_850
assert weights == 3_072 * H1 + H1 * H2 + H2 * 10 == 1_706_496
mlp = kerascnn.dense_mlp(hidden=(H1, H2))
print(kerascnn.summarize(mlp))
assert mlp.count_params() == weights

# %% [markdown]
# 92 % of the weights are in the first layer, where each of 512 units has a weight for
# each of 3,072 numbers. That layer grows with the image. On MNIST, 28·28 grey pixels,
# where MLPs work well, the same network has 535,040 weights. On an image of 224·224
# pixels, the usual size for ImageNet, the first layer alone has 77,070,336.

# %%
assert round(100 * 3_072 * H1 / weights) == 92
mnist = arithmetic.mlp_parameters(28 * 28, H1, H2, 10)
imagenet = arithmetic.dense_parameters(224 * 224 * 3, H1)
print(f"MNIST: {mnist}")
print(f"first layer, 224x224: {imagenet}")
assert mnist == 535_040 and imagenet == 77_070_336

# %% [markdown]
# The lecture's CNN has 33,120 weights. How large may the hidden layers be if the MLP is
# to have no more? With 10 units each it has 30,920 weights, with 11 each 34,023. Ten
# units would have to tell 3,072 numbers' pictures apart.

# %%
cnn_weights = kerascnn.card("lecture_cnn").trainable
assert cnn_weights == 33_120
assert arithmetic.mlp_parameters(3_072, 10, 10, 10) == 30_920 < cnn_weights
assert arithmetic.mlp_parameters(3_072, 11, 11, 10) == 34_023 > cnn_weights

# %% [markdown]
# ## The spatial structure is lost: a proof
#
# Too many weights is the first fault. The second is deeper. Draw one permutation (순열)
# of the 1,024 pixels, and apply it to every image: each pixel goes, with its three
# channels, to the place that the permutation gives it. Nothing is lost; the permutation
# can be undone. But neighbours are neighbours no more.

# %%
images = 100 if SMOKE else 10_000
data = kerascnn.load_data("shapes", images=images)
print(data)
order = np.random.default_rng(0).permutation(32 * 32)


def permute(images):
    """Move the pixels of every image in the same way, each with its channels."""
    pixels = images.x.reshape(len(images), 32 * 32, 3)
    return Images(pixels[:, order].reshape(images.x.shape), images.y)


permuted = dataclasses.replace(
    data,
    name="shapes-permuted",
    title="shapes, pixels permuted",
    train=permute(data.train),
    validation=permute(data.validation),
    test=permute(data.test),
    fingerprint=f"permuted {data.fingerprint}",
    held_out=None,
    origin={},
)
back = permuted.test.x.reshape(-1, 32 * 32, 3)[:, np.argsort(order)]
assert np.array_equal(back.reshape(data.test.x.shape), data.test.x)


def neighbours(images):
    """Mean absolute difference of a number and the one in the pixel beside it."""
    return float(np.abs(np.diff(images.x.astype(int), axis=2)).mean())


as_is, shuffled = neighbours(data.test), neighbours(permuted.test)
print(f"neighbours differ by {as_is:.1f}; after the permutation by {shuffled:.1f}")
assert 2 * as_is < shuffled

# %% [markdown]
# A unit of the first layer is a sum over all inputs, weight times input, and a sum does
# not depend on the order of its terms. So give the weights the same permutation: the
# weight that belonged to a pixel goes where the pixel went. This twin of the MLP
# answers for the permuted image what the MLP answers for the image. Whatever an MLP can
# do with images, an MLP of the same size can do with shuffled ones.


# %%
def twin_of(model):
    """Copy an MLP for permuted images: the rows of its first kernel move along."""
    # Row 3·p + c of the kernel belongs to channel c of pixel p.
    rows = (order[:, None] * 3 + np.arange(3)).ravel()
    kernels = model.get_weights()
    twin = keras.models.clone_model(model)
    twin.set_weights([kernels[0][rows], *kernels[1:]])
    return twin


keras.utils.set_random_seed(0)
mlp = kerascnn.dense_mlp(hidden=(H1, H2))
twin = twin_of(mlp)
answers = mlp.predict_on_batch(data.test.x[:20])
twins = twin.predict_on_batch(permuted.test.x[:20])
difference = float(np.abs(answers - twins).max())
strangers = float(np.abs(answers - twin.predict_on_batch(data.test.x[:20])).max())
print(f"largest difference of two probabilities: {difference:.1e}")
print(f"had the image not been permuted: {strangers:.2f}")
assert difference < 1e-4 < strangers

# %% [markdown]
# What is left of a difference is rounding, because the terms are added in another
# order.
#
# Learning changes nothing in this. The gradient (기울기) of a weight depends on its
# input and on the error, so the twin's weights get the same gradients in permuted
# places; after every step it is still the twin. And the initial weights are drawn at
# random, each from the same distribution: the permuted draw is just as probable as the
# other. For an MLP the two data sets are the same problem.
#
# ## The experiment
#
# Train both, on the same images in the same order. Then train the lecture's CNN on
# both. There is no augmentation (데이터 증강), as shifts and mirrored images would
# themselves know what a neighbour is. The data are `shapes`: only the arrangement of
# the pixels tells the classes apart, so there is no way around it by colour.

# %%
runs = tempfile.TemporaryDirectory()
PLAIN = {"optimizer": "adam", "schedule": "cosine", "precision": "float32"}
MLP = {**PLAIN, "epochs": 1 if SMOKE else 8, "batch_size": 64, "learning_rate": 5e-4}
CNN = {**PLAIN, "epochs": 1 if SMOKE else 5, "batch_size": 32, "learning_rate": 1e-3}
results = {}
for name, model, source, recipe in (
    ("MLP, images", mlp, data, MLP),
    ("MLP, permuted", twin, permuted, MLP),
    ("CNN, images", "lecture_cnn", data, CNN),
    ("CNN, permuted", "lecture_cnn", permuted, CNN),
):
    run = kerascnn.train(model, source, recipe, seed=0, runs=runs.name, progress=False)
    results[name] = run
    low, high = run.metrics["test_interval"]
    print(
        f"{name}: test accuracy {run.metrics['test_accuracy']:.1f} % (95 % interval "
        f"{low:.1f} to {high:.1f}), {run.metrics['epochs']} epochs, "
        f"{run.metrics['seconds']:.0f} s"
    )
print(f"data: {data.title}, {len(data.train):,} images; seed 0; {hardware()}")
accuracy = {name: run.metrics["test_accuracy"] for name, run in results.items()}

# %% [markdown]
# The two MLPs are one network that was trained twice: their accuracies differ by no
# more than rounding brings about over a thousand steps. The CNN is far better than both
# on the images, with a fiftieth of the weights, and falls below them on the shuffled
# ones. In its five epochs it does not even learn the images that it is trained on: less
# than a fifth of them are right in the last epoch. It is not that its units have died:
# its answers still vary from image to image. Its filters look for patterns of 5x5
# neighbours, and the pixels of a window have nothing to do with each other any more.

# %%
for name, run in results.items():
    last = run.history[-1]["accuracy"]
    print(f"{name}: {100 * last:.1f} % of the training images, in the last epoch")
answers = results["CNN, permuted"].model.predict_on_batch(permuted.test.x[:200])
spread = float(answers.std(axis=0).max())
print(f"CNN, permuted: its probabilities vary by {spread:.4f} from image to image")
assert 51 < weights / cnn_weights < 52
assert max(accuracy.values()) == accuracy["CNN, images"] or SMOKE
if not SMOKE:
    assert accuracy["MLP, images"] > 25  # chance is 10 %
    assert abs(accuracy["MLP, images"] - accuracy["MLP, permuted"]) < 4
    assert accuracy["CNN, images"] > accuracy["MLP, images"] + 20
    assert accuracy["CNN, permuted"] < accuracy["MLP, permuted"] - 8
    assert results["CNN, permuted"].history[-1]["accuracy"] < 0.2
    assert spread > 1e-4
    assert len(results["MLP, images"].history) * -(-9_000 // 64) == 1_128  # steps

# %% tags=["hide-input"]
figure = Figure(figsize=(11, 5.2), layout="constrained")
grid = figure.add_gridspec(2, 6, width_ratios=(1, 1, 1, 1, 0.1, 2.4))
for line, (name, source) in enumerate((("images", data), ("permuted", permuted))):
    for column in range(4):
        axes = figure.add_subplot(grid[line, column])
        axes.imshow(source.test.x[column])
        axes.set(xticks=[], yticks=[], title=data.labels[data.test.y[column]])
        if column == 0:
            axes.set_ylabel(name)
axes = figure.add_subplot(grid[:, 5])
places = np.arange(2)
for shift, name, colour in ((-0.2, "MLP", ORANGE), (0.2, "CNN", BLUE)):
    heights = [accuracy[f"{name}, images"], accuracy[f"{name}, permuted"]]
    bars = axes.bar(places + shift, heights, 0.38, color=colour, label=name)
    axes.bar_label(bars, fmt="%.1f")
axes.axhline(10, color=INK, ls="--", lw=1, label="chance")
axes.set_xticks(places, ["images", "permuted"])
axes.set(title="Test accuracy", ylabel="percent", ylim=(0, 100))
axes.legend(frameon=False)
figure.suptitle("One permutation of the pixels, the same for all images")
values = ", ".join(f"{name} {value:.1f} %" for name, value in accuracy.items())
description = (
    "Four test images; below them the same with their pixels permuted, which look like "
    f"coloured noise. At the right the test accuracies: {values}; chance is 10 %."
)
path = FIGURES / "02_mlp_on_images.png"
figure.savefig(path, dpi=150, metadata={"Description": description})
print(f"{path}: {description}")

# %% [markdown]
# So the MLP never made use of the arrangement. It could not: it was never told. When we
# stretched the tensor into a vector, we threw away who is beside whom; an MLP would
# have to learn from the images alone that pixel 0 and pixel 32 touch. The CNN is told,
# by its construction, and that is why it can learn more with less. The experiment also
# shows the other side: what is built in helps only where it is true.
#
# ## Summary
#
# - 32·32·3 = 3,072 inputs. Two hidden layers of 512 and 256: 3,850 units, 1,706,496
#   weights, 92 % of them in the first layer.
# - With the CNN's 33,120 weights an MLP could afford two layers of 10 units.
# - An MLP with permuted weights answers for permuted images what it answered before,
#   and learns them just as well: it does not know what a neighbour is.
# - A CNN does, and is lost when the neighbours are strangers.
#
# ## Exercises
#
# 1. The images become 64x64. How many weights has the MLP, how many more units?
# 2. Exchange red and blue in all images: that is a permutation of the 3,072 numbers
#    too. Does it trouble the CNN? Build its twin.
# 3. Mirror all images, left to right: also a permutation, of pixels. And this one?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. The first layer's weights and the inputs are four times as many.
larger = arithmetic.mlp_parameters(64 * 64 * 3, H1, H2, 10)
assert larger == weights + 3 * 3_072 * H1 == 6_425_088
assert arithmetic.mlp_units(64 * 64 * 3, H1, H2, 10) == units + 3 * 3_072 == 13_066


# 2. No. A convolution adds up all its channels, as a dense layer its inputs:
#    exchange the channels of conv1's filters, and the twin answers the same.
def cnn_twin(change):
    """Copy the CNN that was trained on the images, with other weights."""
    cnn = results["CNN, images"].model
    twin = kerascnn.lecture_cnn()
    twin.set_weights(change([np.asarray(w) for w in cnn.get_weights()]))
    return cnn, twin


def exchange_channels(kernels):
    return [kernels[0][:, :, ::-1], *kernels[1:]]


some = data.test.x[:20]
cnn, twin = cnn_twin(exchange_channels)
expected = cnn.predict_on_batch(some)
assert np.abs(twin.predict_on_batch(some[..., ::-1]) - expected).max() < 1e-3


# 3. No. Mirrored, neighbours are still neighbours: the twin has mirrored filters, and
#    mirrored weights from the last maps, 4x4x32, to the classes.
def mirror(kernels):
    *filters, fc = kernels
    fc = fc.reshape(4, 4, 32, 10)[:, ::-1].reshape(512, 10)
    return [*(k[:, ::-1] for k in filters), fc]


cnn, twin = cnn_twin(mirror)
assert np.abs(twin.predict_on_batch(some[:, :, ::-1]) - expected).max() < 1e-3
runs.cleanup()
print("All numbers of this tutorial hold.")
