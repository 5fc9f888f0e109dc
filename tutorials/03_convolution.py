# %% [markdown]
# # 03 Convolution: nine products and a sum, again and again
#
# The lecture wants a network with fewer parameters that keeps the spatial structure,
# and asks four questions about it:
#
# 1. What happens on the way from one tensor to the next? (This chapter.)
# 2. What are convolution, pooling and fully-connected layers? (This one,
#    [06](06_pooling.py) and [07](07_architecture.py).)
# 3. How are features extracted? ([04](04_filters.py).)
# 4. Does it use fewer parameters? ([07](07_architecture.py), which answers all four.)
#
# **What you will learn.** What one step of a convolution (합성곱) is, by hand; how a
# filter (필터) of 3x3x3 meets a colour image; how sliding it over the image makes an
# activation map (활성화 맵); that Keras computes the same; what a convolution has to do
# with a fully-connected layer; what it has that the other has not: when the image is
# shifted, the map is shifted; and what an equality of two programmes is worth.
#
# **Time.** A few seconds. Nothing is trained here.
#
# Every number below is computed, and every number in the prose is asserted: if this
# script runs to its end, its text is true.

# %%
import os
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import arithmetic, explain

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One step
#
# A fully-connected unit looks at the whole image. A filter looks at a small window
# (윈도우), here 3 pixels high and wide, and has one weight for each of its pixels. One
# step: multiply each pixel of the window by the weight that lies upon it, and add up
# the nine products. On the slide the sum is 4. The slide's picture is lost and of its
# nine products the first: the text has 0 + 0 + 0 + 1 + 1 + 0 + 0 + 1 = 4 with an empty
# place in front, which can only have been a 1. An image and a filter that give these
# products:

# %%
image = np.array(
    [
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
        [1, 0, 0, 0, 1],
    ]
)
filter = np.array(
    [
        [1, 0, 0],
        [0, 1, 1],
        [1, 0, 1],
    ]
)
window = image[0:3, 0:3]
products = window * filter
print(" + ".join(str(p) for p in products.ravel()), "=", products.sum())
assert products.ravel().tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 1]
assert products.sum() == 4

# %% [markdown]
# The sum is large where the image has ones at the places where the filter has ones: the
# step asks "how much of this pattern is here?"
#
# ## Sliding
#
# Move the window by one pixel, and do it again: along the row, then along the next row.
# The sums, put down where the windows were, are a picture again: the activation map. A
# window of 3 has (5 - 3)/1 + 1 = 3 places along an axis of 5 pixels, so the map has 3·3
# numbers. In plain Python it is two loops over the places and two over the window:


# %%
def convolve(image, filter):
    """Slide a filter over an image, both lists of rows; no libraries."""
    tall, wide = len(filter), len(filter[0])
    rows, columns = len(image) - tall + 1, len(image[0]) - wide + 1
    result = [[0] * columns for _ in range(rows)]
    for row in range(rows):
        for column in range(columns):
            for i in range(tall):
                for j in range(wide):
                    result[row][column] += image[row + i][column + j] * filter[i][j]
    return result


by_hand = convolve(image.tolist(), filter.tolist())
for row in by_hand:
    print(row)
assert arithmetic.output_size(5, 3) == 3
assert by_hand == [[4, 3, 1], [1, 4, 3], [1, 1, 4]]

# %% [markdown]
# The stroke of the image goes down to the right, and the 4s of the map go down to the
# right: the map says *where* the pattern is, and so keeps the spatial structure (공간
# 구조) that the vector of an MLP lost.
#
# `explain.slide` does the same and keeps every step. The third, written out:

# %%
slide = explain.slide(image, filter)
print(slide)
print(slide.step(0, 2))
slide.plot(FIGURES / "03_convolution_step.png", step=4, inverted=True)
assert slide.output[..., 0].tolist() == by_hand
assert len(slide.steps) == 9
assert slide.steps[0].products.ravel().tolist() == products.ravel().tolist()
if not SMOKE:
    slide.animate(FIGURES / "03_convolution.gif", inverted=True)

# %% [markdown]
# `03_convolution_step.png` shows the fifth of the nine steps: the image with the window
# framed in its middle, 1 black and 0 white as on the slides; the window, the filter and
# the nine products; and the map, filled as far as the fifth number.
# The animation `03_convolution.gif` shows all nine, one after the other.
#
# ## A colour image, ReLU, several filters
#
# A colour image has three channels (채널), and so has the filter: 3·3·3 = 27 weights.
# The window slides over rows and columns only, not over channels: in each place all 27
# products go into *one* sum. One filter makes one map, however many channels it reads.
# To the sum one may add a bias (편향), one number a filter; then comes ReLU (렐루), y =
# max(0, x), which leaves the places where the pattern is and blanks the others.
#
# A small image with whole numbers, drawn at random, and two random filters:

# %%
rng = np.random.default_rng(0)
colour = rng.integers(0, 256, (6, 7, 3))
filters = rng.integers(-4, 5, (3, 3, 3, 2))
bias = np.array([100, -100])
maps = explain.slide(colour, filters, bias=bias)
print(maps.step(0, 0, 0))
print(f"the maps: {maps.output.shape}")
assert maps.filters[..., 0].size == 27
assert maps.output.shape == (4, 5, 2)
assert arithmetic.output_size(6, 3) == 4 and arithmetic.output_size(7, 3) == 5

# By hand: each channel convolved alone, the three maps added, bias, ReLU.
for f in range(2):
    total = bias[f] + sum(
        np.array(convolve(colour[..., c].tolist(), filters[..., c, f].tolist()))
        for c in range(3)
    )
    assert np.array_equal(maps.sums[..., f], total)
    assert np.array_equal(maps.output[..., f], np.maximum(total, 0))
assert (maps.sums < 0).any() and (maps.output >= 0).all()

# %% [markdown]
# A tensor (텐서) of 6x7x3 has become one of 4x5x2. That is the map T → M of the slide:
# two filters, two maps, which are the channels of what the next layer reads.
#
# ## The same in Keras
#
# Keras keeps filters as (height, width, channels, filters), and images as a batch
# (배치): (N, height, width, channels). `keras.ops.conv` is the bare operation; a
# `Conv2D` layer adds the bias and the activation.

# %%
batch = colour[None].astype("float32")
sums = np.asarray(keras.ops.conv(batch, filters.astype("float32"), padding="valid"))[0]
layer = keras.layers.Conv2D(2, 3, activation="relu")
layer.build(batch.shape)
layer.set_weights([filters, bias])
output = np.asarray(layer(batch))[0]
print(f"ops.conv: largest difference {np.abs(sums + bias - maps.sums).max()}")
print(f"Conv2D:   largest difference {np.abs(output - maps.output).max()}")
assert layer.count_params() == 27 * 2 + 2 == 56
assert np.array_equal(np.rint(sums) + bias, maps.sums)
assert np.array_equal(np.rint(output), maps.output)

# %% [markdown]
# ## A convolution is a fully-connected layer with most lines cut
#
# Every number of the map is a sum of weights times pixels, so some matrix does the
# same: 25 pixels in, 9 numbers out, 225 weights. To find it, convolve each of the 25
# images that have a single 1: their maps are its columns. (The filter has 9 different
# weights here, 1 to 9.)


# %%
def maps_of(image, filters):
    return explain.slide(image, filters, relu=False).output


nine = np.arange(1, 10).reshape(3, 3)
single = np.eye(25).reshape(25, 5, 5)
matrix = np.stack([maps_of(one, nine).ravel() for one in single], axis=1)
print(matrix.astype(int))
assert matrix.shape == (9, 25) and matrix.size == 225
assert np.count_nonzero(matrix) == 9 * 9 == 81
assert len(np.unique(matrix[matrix != 0])) == 9
assert np.array_equal(matrix @ image.ravel(), maps_of(image, nine).ravel())

# %% [markdown]
# Of the 225 weights 144 are 0: a window sees only what is near (local connectivity,
# 지역 연결). The other 81 are 9 weights, each 9 times: the same filter everywhere
# (weight sharing, 가중치 공유). These two restrictions are all that a convolution is.
# They are what it saves: for the lecture's first layer, 32x32x3 to 32x32x32, a
# fully-connected layer has 100,663,296 weights, the convolution has 2,400.

# %%
assert 225 - 81 == 144
full = arithmetic.dense_parameters(32 * 32 * 3, 32 * 32 * 32)
shared = arithmetic.convolution_parameters(5, 3, 32)
print(full, shared, sep="\n")
assert full == 100_663_296 and shared == 2_400

# %% [markdown]
# ## The image is shifted, the map is shifted
#
# What does the sharing buy? As the filter is the same everywhere, a thing gives the
# same numbers wherever it is. Shift the image by 3 rows and 5 columns: the map is the
# old one, shifted by 3 rows and 5 columns (translation equivariance, 이동 등변성). It
# holds exactly, number by number, where both maps see the same pixels; at the borders
# other pixels have come in (here those that went out on the other side).
#
# We take one of the built-in images and a filter that answers to a horizontal change of
# brightness: -1 on its left, 1 on its right, over all channels.

# %%
data = kerascnn.load_data("shapes", images=200)
picture = data.train.x[4].astype(float)
down, right_by = 3, 5
shifted = np.roll(picture, (down, right_by), axis=(0, 1))
edge = np.zeros((3, 3, 3))
edge[:, 0], edge[:, 2] = -1, 1
there, then = maps_of(picture, edge)[..., 0], maps_of(shifted, edge)[..., 0]
assert there.shape == (30, 30)
assert np.array_equal(then[down:, right_by:], there[:-down, :-right_by])
assert not np.array_equal(then, there)

# Some accelerators round the factors of a product to 11 bits.
devices = keras.distribution.list_devices()
exact = all("cpu" in device for device in devices)
# The same for all maps of a trained network's first layer, in Keras.
conv1 = kerascnn.load("lecture_cnn").get_layer("conv1")
both = np.stack([picture, shifted]).astype("float32") / 127.5 - 1
before, after = np.asarray(conv1(both))
inner = slice(2, -2)  # its padding of 2 puts zeros around the image
moved = after[down:, right_by:][inner, inner]
stayed = before[:-down, :-right_by][inner, inner]
print(f"conv1, largest difference: {np.abs(moved - stayed).max():.1e}")
assert np.abs(moved - stayed).max() < (1e-4 if exact else 1e-1)

# %% tags=["hide-input"]
figure = Figure(figsize=(10, 5.6), layout="constrained")
panels = figure.subplots(2, 3)
for line, (name, some, answer) in enumerate(
    (("image", picture, there), ("shifted by 3 and 5", shifted, then))
):
    panels[line, 0].imshow(some.astype(np.uint8))
    panels[line, 0].set_title(name)
    limits = {"cmap": "PuOr", "vmin": -np.abs(there).max(), "vmax": np.abs(there).max()}
    shown = panels[line, 1].imshow(answer, **limits)
    panels[line, 1].set_title("map of the edge filter")
    figure.colorbar(shown, ax=panels[line, 1], label="sum")
    panels[line, 2].imshow(np.maximum(answer, 0), cmap="viridis", vmin=0)
    panels[line, 2].set_title("after ReLU")
for axes in panels.ravel():
    axes.set(xlabel="column", ylabel="row")
figure.suptitle("The image is shifted, the map is shifted")
description = (
    "Two rows. Left an image and the same, shifted down by 3 and right by 5 pixels; in "
    "the middle the maps of the edge filter, the outline's left and right edges in two "
    "colours; right the maps after ReLU, one kind of edge alone. The lower maps are "
    "the upper ones, shifted by as much."
)
path = FIGURES / "03_convolution_shift.png"
figure.savefig(path, dpi=150, metadata={"Description": description})
print(f"{path}: {description}")

# %% [markdown]
# A fully-connected layer has nothing of the kind: each of its weights belongs to one
# pixel, and what it has learned of a thing at the left it does not know of the same
# thing at the right. It has to be shown the thing in every place.

# %% [markdown]
# ## What is that equality worth?
#
# Two programmes agree. That is evidence that both are right only as far as a wrong one
# would have been found out. Three questions to ask:
#
# **Do they share code?** The loops above are plain Python. Keras calls a library that
# was written for speed, by others. If both had the same mistake, it would have to be in
# what we *think* a convolution is.
#
# **Would the test notice a mistake?** Try some. Here are four wrong convolutions. With
# the filter that blurs, every weight 1, three of the four agree with the right one: an
# equality that is tested on it proves little. With random filters each is found out.


# %%
def turned(image, filters):
    """The filter upside down: what mathematics calls a convolution."""
    return maps_of(image, filters[::-1, ::-1])


def transposed(image, filters):
    """Rows and columns of the filter exchanged."""
    return maps_of(image, filters.swapaxes(0, 1))


def channels_reversed(image, filters):
    """Blue, green, red in place of red, green, blue."""
    return maps_of(image[..., ::-1], filters)


def first_channel_only(image, filters):
    """Two of three channels forgotten."""
    return maps_of(image[..., :1], filters[:, :, :1])


mistakes = (turned, transposed, channels_reversed, first_channel_only)
blur = np.ones((3, 3, 3, 1))
agree = {}
for name, some in (("blur", blur), ("random", filters)):
    right = maps_of(colour, some)
    agree[name] = [
        wrong.__name__ for wrong in mistakes if (wrong(colour, some) == right).all()
    ]
    print(f"{name} filter: agree with the right one: {agree[name] or 'none'}")
assert agree["blur"] == ["turned", "transposed", "channels_reversed"]
assert agree["random"] == []

# %% [markdown]
# (The first mistake has a story. In mathematics, a convolution turns the filter upside
# down; what networks compute is called a cross-correlation, 교차 상관. As the filters
# are learned, it makes no difference which of the two a network uses, and everybody
# says convolution.)
#
# **How equal is equal?** Whole numbers leave no room: the greatest sum possible here,
# 27·255·4 + 100 = 27,640, is far below 2^24, up to which float32 holds every whole
# number, so the maps have to be the same numbers, and are. With fractions float32
# rounds. Each rounding is wrong by a share of at most u = 2^-24, so that a sum of n
# products is wrong by no more than about n·u times the sum of their absolute values
# (Higham, *Accuracy and Stability of Numerical Algorithms*, chapter 3). That is a limit
# that we know before we look. (Some accelerators round factors to 11 bits to be faster;
# there u is 2^-11.)

# %%
assert 27 * 255 * 4 + 100 == 27_640 < 2**24
u = 2.0**-24 if exact else 2.0**-11
photo = rng.uniform(-1, 1, (32, 32, 3)).astype("float32")
kernel = rng.normal(0, 0.3, (3, 3, 3, 8)).astype("float32")
ours = maps_of(photo, kernel)  # float64
theirs = np.asarray(keras.ops.conv(photo[None], kernel, padding="valid"))[0]
# 27 roundings of products and sums, and 2 where both factors are rounded before.
limit = (27 + 2) * u * maps_of(np.abs(photo), np.abs(kernel))
difference = np.abs(ours - theirs)
print(
    f"largest difference {difference.max():.1e}; largest share of its limit "
    f"{(difference / limit).max():.2f}"
)
assert (difference <= limit).all()

# %% [markdown]
# A test that allows 0.01 "to be safe" would let a wrong programme pass; one that allows
# 0 would refuse a right one. Here the allowance follows from the arithmetic.
#
# ## Summary
#
# - One step: window times filter, place by place, and the sum. On the slide, 4.
# - A filter is as deep as what it reads: 3·3·3 = 27 products in one sum, one number.
# - One filter, one map; ReLU blanks what is below 0.
# - By hand, with `slide` and with Keras it is the same; and we know of four mistakes
#   that the comparison would have found.
# - A convolution is a fully-connected layer, most of whose weights are 0 and the others
#   shared: 2,400 instead of 100,663,296.
# - Shift the image, and the map shifts.
#
# ## Exercises
#
# 1. How many products does a 3x3x3 filter take for one map of a 32x32x3 image, without
#    padding?
# 2. Add 50 to every pixel. What happens to the map of the edge filter?
# 3. Slide the edge filter with a stride (스트라이드) of 2. By which shifts may the
#    image move now, so that the map is a shifted map?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. 30·30 places with 27 products each.
assert arithmetic.convolution_macs(30, 3, 3, 1) == 30 * 30 * 27 == 24_300

# 2. Nothing: its weights sum to 0, so that it sees differences alone.
assert edge.sum() == 0
assert np.array_equal(maps_of(picture + 50, edge)[..., 0], there)

# 3. By even numbers of pixels: 2 pixels are one step of the map. After a shift of 1 the
#    windows fall on other pixels than before.
strided = explain.slide(picture, edge, stride=2, relu=False).output
two, one = (
    explain.slide(np.roll(picture, n, axis=1), edge, stride=2, relu=False).output
    for n in (2, 1)
)
assert np.array_equal(two[:, 1:], strided[:, :-1])
assert not np.array_equal(one[:, 1:], strided[:, :-1])
assert not np.array_equal(one, strided)
print("All numbers of this tutorial hold.")
