# %% [markdown]
# # 05 Stride and padding: how large the map is, and what the zeros do
#
# **What you will learn.** How the size of a map follows from the sizes of image and
# filter (필터), the stride (스트라이드) and the padding (패딩); what happens when the
# stride does not fit; why networks pad with zeros and what noise (잡음) that makes at
# the border, in a trained network too; and where Keras' `padding="same"` puts its zeros
# at a stride of 2.
#
# **Time.** A few seconds. Nothing is trained here.

# %%
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import arithmetic, explain

FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The formula
#
# A filter of F pixels fits into an image of I pixels at I - F + 1 places. If it moves
# by S pixels at a time, it stops at each S-th of them only:
#
#     O = (I - F)/S + 1
#
# The slide has two examples with I = 5 and F = 3. At a stride of 1 there are 3 places,
# at a stride of 2 there are 2.

# %%
for stride in (1, 2):
    print(explain.windows(5, 3, stride))
assert arithmetic.output_size(5, 3, stride=1) == 3
assert arithmetic.output_size(5, 3, stride=2) == 2
explain.windows(5, 3, 2).plot(FIGURES / "05_stride.png")

# %% [markdown]
# `05_stride.png` shows the five pixels in a row and the two windows below them: the
# first on pixels 0 to 2, the second on pixels 2 to 4.
#
# The formula holds for each axis by itself. So 5x5 pixels become 3x3 numbers, or 2x2.
# We need not take the formula's word for it; Keras can be asked, here for 54 sizes of
# image, filter and stride, each with both of Keras' paddings.


# %%
def size_by_keras(size, window, stride, padding):
    layer = keras.layers.Conv2D(1, window, strides=stride, padding=padding)
    return layer.compute_output_shape((1, size, size, 1))[1]


checked = 0
for size in range(5, 11):
    for window in (2, 3, 5):
        for stride in (1, 2, 3):
            for padding in ("valid", "same"):
                ours = arithmetic.output_size(size, window, stride, padding)
                assert ours == size_by_keras(size, window, stride, padding)
            checked += 1
assert checked == 54

# %% [markdown]
# ## A stride that does not fit
#
# Six pixels, a filter of 3, a stride of 2: (6 - 3)/2 + 1 = 2.5. There is no half
# window. Keras rounds down, without a word, and the last pixel is never read.
# `output_size` says so.

# %%
odd = arithmetic.output_size(6, 3, stride=2)
print(odd)
assert float(odd.exact) == 2.5
assert odd == 2
assert odd.unread == (5,)
explain.windows(6, 3, 2).plot(FIGURES / "05_left_over.png")

# %% [markdown]
# `05_left_over.png` shows six pixels and two windows; the last pixel is hatched, as no
# window reaches it.
#
# That is not a matter of taste. An image whose whole content is in its last column
# gives a map of zeros:

# %%
image = np.zeros((1, 6, 6, 1), "float32")
image[:, :, 5] = 1
ones = np.ones((3, 3, 1, 1), "float32")
map_ = keras.ops.convert_to_numpy(keras.ops.conv(image, ones, strides=2))
print(map_[0, ..., 0])
assert map_.shape == (1, 2, 2, 1)
assert (map_ == 0).all()

# %% [markdown]
# ## The map shrinks
#
# Without padding O is at most I - F + 1, so every convolution with a filter larger than
# 1x1 makes its image smaller. A 32x32 image survives 15 convolutions of 3x3: 30, 28,
# and so on down to 2. The sixteenth has no place for its filter. VGG19 has sixteen.

# %%
sizes = [32]
while sizes[-1] >= 3:
    sizes.append(int(arithmetic.output_size(sizes[-1], 3)))
print(sizes)
assert len(sizes) - 1 == 15 and sizes[-1] == 2
try:
    arithmetic.output_size(sizes[-1], 3)
except ValueError as error:
    print(error)
else:
    raise RuntimeError("a filter of 3 does not fit into 2 pixels")
assert kerascnn.card("vgg19").depth - 1 == 16  # but for its dense layer

# %% [markdown]
# The remedy is to lay P rows and columns of zeros around the image:
#
#     O = (I + 2P - F)/S + 1
#
# At a stride of 1 the size stays if P = (F - 1)/2: 1 for a filter of 3x3, 2 for the
# lecture's 5x5. A filter of even size has no such P, since two sides cannot share an
# odd number of zeros equally.

# %%
assert arithmetic.keeping_padding(3) == 1
assert arithmetic.keeping_padding(5) == 2
assert arithmetic.output_size(32, 5, padding=2) == 32
print(arithmetic.output_size(32, 5, padding=2))
explain.windows(7, 3, 1, padding=1).plot(FIGURES / "05_padding.png")

# %% [markdown]
# `05_padding.png` shows seven pixels with a hatched zero at each end, and seven
# windows: the first begins on the zero to the left, the last ends on the zero to the
# right.
#
# ## The zeros are noise
#
# The zeros are not data. Nobody photographed them, and yet the filter weighs them as
# pixels. To see what they do, take the plainest image there is, 8x8 ones, and the
# plainest filter, the mean of 3x3 pixels. The mean of ones is 1. But at the border the
# filter finds 3 zeros among its nine numbers, in the corner 5:

# %%
flat = np.ones((8, 8))
mean = np.full((3, 3), 1 / 9)
blurred = explain.slide(flat, mean, padding=1).output[..., 0]
print(blurred.round(2))
assert np.allclose(blurred[1:-1, 1:-1], 1)
assert np.isclose(blurred[0, 4], 6 / 9)
assert np.isclose(blurred[0, 0], 4 / 9)

# %% [markdown]
# The image had no edges; its map has four. Each further convolution carries them
# inwards, by (F - 1)/2 pixels. How much of the lecture's CNN is touched? A number is
# clean if every number that it was made of is clean and none is a zero of the padding.
# The windows of `output_size` are all that we need to follow this from layer to layer:

# %%
layers = (
    ("conv1", lambda size: arithmetic.output_size(size, 5, padding=2)),
    ("pool1", lambda size: arithmetic.pooling_size(size, 2)),
    ("conv2", lambda size: arithmetic.output_size(size, 5, padding=2)),
    ("pool2", lambda size: arithmetic.pooling_size(size, 2)),
    ("conv3", lambda size: arithmetic.output_size(size, 5, padding=2)),
    ("pool3", lambda size: arithmetic.pooling_size(size, 2)),
)
clean, touched = set(range(32)), {}
for name, place in layers:
    placed = place(32 if name == "conv1" else size)
    clean = {i for i, taps in enumerate(placed.windows) if clean.issuperset(taps)}
    size = int(placed)
    touched[name] = 100 * (1 - (len(clean) / size) ** 2)
    print(f"{name}: {size}x{size}, {touched[name]:.1f} % touched by zeros")
assert round(touched["conv1"], 1) == round(touched["pool1"], 1) == 23.4
assert round(touched["conv2"], 1) == 60.9
assert touched["pool2"] == 75
assert touched["conv3"] == touched["pool3"] == 100

# %% [markdown]
# After CONV1 a ring of 2 pixels, 23.4 % of the map, knows of the zeros. After CONV3
# there is no number left that does not.
#
# ## The same in a trained network
#
# That was reasoning about windows. Now we look. The lecture's CNN, with the weights
# that it learned on CIFAR-10, gets a wholly red image. Wherever nothing but red is
# seen, each map has to have one value; which, the middle of a much larger red image
# tells. Every place that differs from it has seen zeros.

# %%
names = [name for name, _ in layers]
model = kerascnn.load("lecture_cnn")
large = kerascnn.lecture_cnn((96, 96, 3))
for number in (1, 2, 3):
    trained = model.get_layer(f"conv{number}").get_weights()
    large.get_layer(f"conv{number}").set_weights(trained)


def maps_of(network, image):
    layers = [network.get_layer(name).output for name in names]
    values = keras.Model(network.inputs, layers).predict(image[None], verbose=0)
    return {n: v[0] for n, v in zip(names, values, strict=True)}


red = maps_of(model, np.tile(np.float32([255, 0, 0]), (32, 32, 1)))
middle = maps_of(large, np.tile(np.float32([255, 0, 0]), (96, 96, 1)))
for name in names:
    centre = middle[name].shape[0] // 2
    difference = np.abs(red[name] - middle[name][centre, centre]).max(-1)
    seen = 100 * (difference > 1e-4).mean()
    print(f"{name}: {seen:.1f} % differ from the middle of a large red image")
    assert round(seen, 1) == round(touched[name], 1)

# %% [markdown]
# Every percentage is what the windows foretold. The picture shows the maps of CONV1,
# CONV2 and CONV3 that vary most; a network without padding would give a flat surface
# each.

# %% tags=["hide-input"]
figure = Figure(figsize=(12, 7), layout="constrained")
grid = figure.subplots(2, 3)
for line, name in zip(grid.T, ("conv1", "conv2", "conv3"), strict=True):
    strongest = np.argsort(-red[name].std((0, 1)))[:2]
    for axes, k in zip(line, strongest, strict=True):
        shown = axes.imshow(red[name][..., k], cmap="viridis")
        axes.set_title(f"{name}, map {k}")
        axes.set_xlabel("column of the map")
        axes.set_ylabel("row of the map")
        figure.colorbar(shown, ax=axes, label="activation", shrink=0.8)
figure.suptitle("The lecture's CNN on a red image: all that is seen is the padding")
figure.savefig(FIGURES / "05_zeros_in_a_trained_network.png", dpi=120)

# %% [markdown]
# `05_zeros_in_a_trained_network.png` shows two maps each of CONV1, CONV2 and CONV3 for
# the red image. Those of CONV1 are flat but for a frame along the border; in those of
# CONV2 the frame is wide; those of CONV3 vary everywhere.
#
# Note what 0 *means*. The networks of this package scale the pixels from 0…255 to -1…1
# before the first convolution, so that a zero of the padding is neither black nor white
# but the grey between them, 127.5. On an image of that grey the padding cannot be seen;
# as there are no biases (편향), all maps are 0 everywhere.

# %%
grey = maps_of(model, np.full((32, 32, 3), 127.5, "float32"))
assert all((grey[name] == 0).all() for name in names)

# %% [markdown]
# The noise is not only bad. A convolution does the same at every place and cannot know
# where it is; the zeros tell it where the border is. But they tell it at the price of
# numbers at the border that mean something else than the same numbers elsewhere.
#
# ## Keras' "same" at a stride of 2
#
# In Keras one does not give P. One gives `padding="valid"`, no zeros, or
# `padding="same"`: as many zeros as it takes to have O = I/S, rounded up. At a stride
# of 1 that is the lecture's P. At a stride of 2 it often is an odd number of zeros, and
# Keras puts the one too many *after* the image: 8 pixels and a filter of 3 get no zero
# before and one after.

# %%
same = arithmetic.output_size(8, 3, stride=2, padding="same")
ours = arithmetic.output_size(8, 3, stride=2, padding=1)
print(explain.windows(8, 3, 2, padding="same"))
print(explain.windows(8, 3, 2, padding=1))
assert same == ours == 4
assert (same.before, same.after) == (0, 1)
assert (ours.before, ours.after) == (1, 1) and ours.left_over == 1
explain.windows(8, 3, 2, padding="same").plot(FIGURES / "05_same.png")
explain.windows(8, 3, 2, padding=1).plot(FIGURES / "05_symmetric.png")

# %% [markdown]
# `05_same.png` shows the windows of "same": the first begins on pixel 0, and the last
# reads the one zero at the right. `05_symmetric.png` shows those of P = 1: the first
# begins on a zero at the left, and a zero at the right is left over.
#
# Both give 4 numbers, so no shape shows the difference. But the windows of the one lie
# a pixel beside those of the other. A filter that returns the pixel in its middle, on
# an image whose columns are numbered from 0, tells which columns they are centred on:

# %%
columns = np.tile(np.arange(8, dtype="float32"), (8, 1))[None, ..., None]
centre = np.zeros((3, 3, 1, 1), "float32")
centre[1, 1] = 1


def centres(image, padding):
    if padding == "same":
        maps = keras.ops.conv(image, centre, strides=2, padding="same")
    else:
        padded = keras.layers.ZeroPadding2D(padding)(image)
        maps = keras.ops.conv(padded, centre, strides=2, padding="valid")
    return keras.ops.convert_to_numpy(maps)[0, 1, :, 0].astype(int).tolist()


print("same:", centres(columns, "same"), " P = 1:", centres(columns, 1))
assert centres(columns, "same") == [1, 3, 5, 7]
assert centres(columns, 1) == [0, 2, 4, 6]

# %% [markdown]
# Whoever carries the weights of a network from a framework with a symmetric P to Keras'
# "same" gets a network that runs, has the right shapes, and sees everything one pixel
# aside. The remedy is the one used above: `ZeroPadding2D(1)`, then "valid".
#
# And it depends on the image: 7 pixels need two zeros, one on each side, and there
# "same" is P = 1. Equal layers, other images, another padding.

# %%
same_7 = arithmetic.output_size(7, 3, stride=2, padding="same")
assert (same_7.before, same_7.after) == (1, 1) and same_7 == 4
assert centres(columns[:, :7, :7], "same") == centres(columns[:, :7, :7], 1)

# %% [markdown]
# ## Summary
#
# - O = (I + 2P - F)/S + 1, for each axis: 5, 3, 1 gives 3 and 5, 3, 2 gives 2.
# - Where the division has a remainder, Keras rounds down, and pixels go unread.
# - P = (F - 1)/2 keeps the size at a stride of 1.
# - The zeros are seen: by 23.4 % of CONV1's numbers, and by all of CONV3's.
# - Keras' "same" at a stride of 2 puts the odd zero after the image; "same" size is not
#   the same place.
#
# ## Exercises
#
# 1. A famous first layer is said to take images of 224 pixels, with filters of 11 and a
#    stride of 4, without padding. What is wrong, and which size nearby is right?
# 2. Replace a filter of 7x7 with padding 3 by three of 3x3 with padding 1. Does a
#    smaller part of a 32x32 map know of the zeros?
# 3. Pad the 8x8 ones with copies of the border instead of zeros. What does the mean
#    filter make of them?
# 4. At a stride of 2 and with 8 pixels, is there a P for which a mirrored image gives
#    the mirrored map, with a filter of 3x3 that is its own mirror image? And with one
#    of 2x2?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. (224 - 11)/4 + 1 = 54.25: it does not fit. 227 does, and gives the 55 that one
#    reads.
assert float(arithmetic.output_size(224, 11, stride=4).exact) == 54.25
assert arithmetic.output_size(227, 11, stride=4).fits
assert arithmetic.output_size(227, 11, stride=4) == 55


# 2. No: both reach 3 pixels inwards. 26 of 32 rows and columns stay clean.
def clean_rows(*filters):
    rows = set(range(32))
    for window in filters:
        placed = arithmetic.output_size(32, window, padding=(window - 1) // 2)
        rows = {i for i, taps in enumerate(placed.windows) if rows.issuperset(taps)}
    return len(rows)


assert clean_rows(7) == clean_rows(3, 3, 3) == 26

# 3. Ones, without a border: the copies agree with the image. On an image that is not
#    flat they are invented, too, only less visibly.
copied = explain.slide(np.pad(flat, 1, mode="edge"), mean).output[..., 0]
assert np.allclose(copied, 1)

# 4. Not with 3x3. Mirrored, column c becomes 7 - c, which turns even columns into odd
#    ones; but the centres of any padding are all even or all odd. A filter of 2x2 has
#    its centre between two columns, and P = 0 will do, as in the lecture's pooling.
mirrored = columns[:, :, ::-1]
for padding in ("same", 0, 1, 2, 3):
    assert centres(mirrored, padding) != centres(columns, padding)[::-1]
pairs = [set(taps) for taps in arithmetic.output_size(8, 2, stride=2).windows]
assert [{7 - c for c in pair} for pair in pairs[::-1]] == pairs
print("All numbers of this tutorial hold.")
