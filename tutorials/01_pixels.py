# %% [markdown]
# # 01 Pixels: an image is numbers
#
# **What you will learn.** What a computer has of an image: numbers from 0 to 255, one
# for each pixel (화소) of a grey image, three for each pixel of a colour image; how a
# picture lies in memory as one list, and what the list alone does not say; what happens
# to the numbers when they are stored, made grey, or given to a network.
#
# **Time.** Some seconds, and ten more where CIFAR-10 is read. Nothing is trained here.
#
# Every number below is computed, and every number in the prose is asserted: if this
# script runs to its end, its text is true.

# %%
import io
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import kerascnn
from kerascnn import arithmetic, explain

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## What a computer sees: the slide's list
#
# The slide shows a small grey picture (흑백 이미지) and the list of its numbers. Each
# number is the brightness of one pixel: 0 is black, 255 is white. (The slide fills up
# with zeros, 081; Python would refuse that as a number, so we read them from a text.)

# %%
text = """
254 081 068 041 032 071 197  196 014 132 213 187 043 041  174 011 200 254 161 177 164
201 014 012 128 242 255 255  253 212 089 005 064 196 253  255 255 251 196 030 009 165
127 162 251 254 197 009 105  062 005 100 144 097 006 170  207 083 032 051 053 134 250
"""
x = np.array([int(word) for word in text.split()], np.uint8)
print(f"{len(x)} numbers from {x.min()} to {x.max()}: {x[:9]} …")
assert len(x) == 63
assert (x.min(), x.max()) == (5, 255)

# %% [markdown]
# 63 numbers, from 5 to 255. What do they show? As a list, nothing. In 9 rows of 7 they
# show a dark S on a light ground:

# %%
grey = x.reshape(9, 7)
slide = explain.pixels(grey)
print(slide)
slide.plot(FIGURES / "01_pixels_grey.png")
assert grey.shape == (9, 7) and 9 * 7 == 63

# %% [markdown]
# `01_pixels_grey.png` shows the picture, and the same picture with each pixel's number
# written upon it: the strokes of the S have numbers below 100, the ground has numbers
# from 100 to 255.
#
# Rows (행) and columns (열) are counted from 0, rows downwards. The pixel in row i and
# column j is number 7·i + j of the list. The darkest, with 5, are in row 4, column 3
# and in row 7, column 1:

# %%
assert np.argwhere(grey == 5).tolist() == [[4, 3], [7, 1]]
assert x[7 * 4 + 3] == x[31] == grey[4, 3] == 5
assert x[7 * 7 + 1] == x[50] == 5
assert int((grey < 100).sum()) == 25

# %% [markdown]
# ## What the list does not say
#
# 63 is also 7·9, and 3·21. The list fits into these shapes just as well, and the S is
# gone. The picture is not in the numbers alone; it is in the numbers *and* in who is
# beside whom: the spatial structure (공간 구조). In the list, the right neighbour of a
# pixel is the next number, but the one below is 7 numbers away.
#
# Who is beside whom matters because neighbours tend to be alike. In this picture it can
# hardly be measured: a number differs from the one beside it by 77.0 on average, from
# the one below by 87.5, and two numbers from anywhere differ by 101.5. But read in rows
# of 9, numbers below each other differ by only 71.1. The strokes are one or two pixels
# wide, and 63 numbers prove little. We will ask again with larger images.


# %%
def mean_difference(image, axis):
    """Mean absolute difference of neighbours along an axis."""
    return float(np.abs(np.diff(image.astype(int), axis=axis)).mean())


anywhere = np.abs(x[:, None].astype(int) - x[None].astype(int)).sum() / (63 * 62)
differences = {
    "beside each other": mean_difference(grey, 1),
    "below each other": mean_difference(grey, 0),
    "anywhere": float(anywhere),
    "below each other, in rows of 9": mean_difference(x.reshape(7, 9), 0),
}
for name, value in differences.items():
    print(f"{name}: {value:.1f}")
assert [round(v, 1) for v in differences.values()] == [77.0, 87.5, 101.5, 71.1]

# %% tags=["hide-input"]
figure = Figure(figsize=(11, 3.6), layout="constrained")
panels = figure.subplots(1, 3, width_ratios=(1, 1.3, 2.2))
for axes, shape in zip(panels, ((9, 7), (7, 9), (3, 21)), strict=True):
    axes.imshow(x.reshape(shape), cmap="gray", vmin=0, vmax=255)
    axes.set_xticks(range(0, shape[1], 2))
    axes.set(title=f"{shape[0]} rows of {shape[1]}", xlabel="column", ylabel="row")
figure.suptitle("The same 63 numbers in the same order")
description = (
    "The 63 numbers as three pictures: in 9 rows of 7 a dark S on white; in 7 rows of "
    "9 something like an X, in 3 rows of 21 scattered dark and light squares."
)
figure.savefig(
    FIGURES / "01_pixels_shapes.png", dpi=150, metadata={"Description": description}
)
print(f"{FIGURES / '01_pixels_shapes.png'}: {description}")

# %% [markdown]
# ## One byte each
#
# Why 255? A pixel is stored in one byte, 8 bits, which has 2^8 = 256 values: the type
# `uint8`. Arithmetic in that type stays inside it and wraps around at the end, which
# ruins pictures: 254 + 3 is 1. Convert first, then calculate.

# %%
assert 2**8 == 256 and np.iinfo(np.uint8).max == 255
assert grey.nbytes == 63
brighter = grey + np.uint8(3)  # wrong: the white pixels turn black
assert grey[0, 0] == 254 and brighter[0, 0] == 1
correct = np.clip(grey.astype(int) + 3, 0, 255).astype(np.uint8)
assert correct[0, 0] == 255
negative = 255 - grey  # cannot leave 0…255
assert negative[4, 3] == 250

# %% [markdown]
# ## Colour: three numbers for each pixel
#
# A colour (색) is mixed of red, green and blue light (빨강, 초록, 파랑): RGB. The slide
# has three pixels: a light blue, an orange and a green. As an image they are 1 row of 3
# columns with 3 channels (채널), an array of shape (1, 3, 3), 9 numbers. The first axis
# is the height, the second the width, the third the channels; Keras calls this order
# "channels last".

# %%
colours = {
    "light blue": (61, 183, 228),
    "orange": (255, 136, 73),
    "green": (105, 190, 40),
}
rgb = np.array([list(colours.values())], np.uint8)
assert rgb.shape == (1, 3, 3) and rgb.size == 9
three = explain.pixels(rgb)
print(three)
figure = three.plot()
figure.set_size_inches(8.4, 4.2)
for axes in figure.axes:
    axes.set(xticks=range(3), yticks=[0])
figure.savefig(
    FIGURES / "01_pixels_rgb.png", dpi=150, metadata={"Description": str(three)}
)
for name, values in colours.items():
    print(f"{name}: {values}, #{values[0]:02X}{values[1]:02X}{values[2]:02X}")
assert bytes(colours["light blue"]).hex() == "3db7e4"
assert 256**3 == 16_777_216

# %% [markdown]
# `01_pixels_rgb.png` has four panels: the three pixels in their colours, and each
# channel apart, from black to full red, green and blue, with the numbers upon it. The
# light blue has little red, 61; the orange has all the red there is, 255, and little
# blue; the green has least blue, 40. Three bytes make 256³ = 16,777,216 colours.
#
# Each channel is a grey image of its own: how much red there is in each place. The web
# writes the same three bytes in base 16: #3DB7E4 is (61, 183, 228).
#
# ## From colour to grey
#
# To make a pixel grey one could take the mean of the three. The eye does not: it sees
# green as much brighter than blue. JPEG and Pillow weigh 0.299, 0.587 and 0.114 (from
# the television standard ITU-R BT.601). By the mean, the slide's green is far darker
# than the light blue, 112 against 157; to the eye they are nearly as bright, 147 and
# 152.

# %%
mean = rgb[0].mean(-1)
seen = rgb[0] @ np.array([0.299, 0.587, 0.114])
pillow = np.asarray(Image.fromarray(rgb).convert("L"))[0]
for name, m, s in zip(colours, mean, seen, strict=True):
    print(f"{name}: mean {m:.1f}, weighed {s:.1f}")
assert [round(m) for m in mean] == [157, 155, 112]
assert [round(s) for s in seen] == pillow.tolist() == [152, 164, 147]

# %% [markdown]
# ## A real image
#
# The lecture's images have 32·32 pixels and 3 channels: 32·32·3 = 3,072 numbers. The
# built-in images, `shapes`, have that size as well; of CIFAR-10 one is shown too where
# it is prepared on this machine. `pixels` writes out the numbers of 8·8 pixels in the
# middle.

# %%
size = arithmetic.product(32, 32, 3)
print(size)
assert size == 3_072

data = kerascnn.load_data("shapes", images=200)
image = data.train.x[0]
print(f"data: {data.title}, of the class {data.labels[data.train.y[0]]}")
shown = explain.pixels(image)
print(shown)
shown.plot(FIGURES / "01_pixels_shape.png")
assert image.shape == (32, 32, 3) and image.dtype == np.uint8
assert image.nbytes == size

# %% [markdown]
# `01_pixels_shape.png` shows the image with a frame around the part whose numbers
# follow, and the three channels of that part apart. No number says "this is the shape,
# that is the background": all there is are differences between neighbours.
#
# In the list of 3,072 numbers the three channels of a pixel come one after the other,
# then those of the pixel to the right. So the right neighbour is 3 numbers away, and
# the one below 32·3 = 96:

# %%
flat = image.reshape(-1)


def position(row, column, channel):
    """Where a number of a 32x32x3 image is in the list."""
    return int(np.ravel_multi_index((row, column, channel), (32, 32, 3)))


assert position(10, 11, 0) - position(10, 10, 0) == 3
assert position(11, 10, 0) - position(10, 10, 0) == 32 * 3 == 96
assert flat[position(20, 5, 2)] == image[20, 5, 2]

# %% [markdown]
# Neighbours are alike here too, much more than pixels from anywhere in the same image:

# %%
rng = np.random.default_rng(0)
pairs = rng.integers(0, 32, (2, 2, 5_000))
images = data.train.x.astype(int)
beside = np.abs(np.diff(images, axis=2)).mean()
apart = np.abs(
    images[:, pairs[0, 0], pairs[0, 1]] - images[:, pairs[1, 0], pairs[1, 1]]
).mean()
print(f"neighbours differ by {beside:.1f}, pixels from anywhere by {apart:.1f}")
assert 2 * beside < apart

# %% [markdown]
# ## CIFAR-10, where it is there
#
# `01_pixels_cifar10.png` shows a photograph in the same way: the image with its frame,
# and the three channels of the framed part with their numbers.
#
# 60,000 images of 3,072 bytes are 184,320,000 bytes: they fit into memory. As float32,
# four bytes a number, they would take four times as much, so they are converted batch
# by batch.

# %%
assert 60_000 * 3_072 == 184_320_000
source = next(s for s in kerascnn.data.available() if s.name == "cifar10")
if source.there and not SMOKE:  # reading it takes some seconds
    cifar = kerascnn.load_data("cifar10")
    photo = cifar.test.x[0]
    print(f"data: {cifar.title}, test image 0: {cifar.labels[cifar.test.y[0]]}")
    assert photo.shape == (32, 32, 3)
    explain.pixels(photo).plot(FIGURES / "01_pixels_cifar10.png")
else:
    print(f"data: shapes alone; CIFAR-10 on this machine: {source.where}")

# %% [markdown]
# ## Stored, and read back
#
# PNG keeps every number. JPEG keeps what the eye sees, and changes the numbers: a JPEG
# copy of a data set is not the data set, which is why this package prints "JPEG copy"
# beside accuracies that were measured on one.


# %%
def stored(image, format):
    """Write an image in a format, and read it back."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return np.asarray(Image.open(file))


assert np.array_equal(stored(image, "PNG"), image)
changed = stored(image, "JPEG")
share = float((changed != image).mean())
largest = int(np.abs(changed.astype(int) - image).max())
print(f"JPEG changed {share:.0%} of the numbers, by up to {largest}")
assert share > 0.5 and largest > 5

# %% [markdown]
# ## What a network gets
#
# The networks of this package take the numbers 0 to 255 as they are; their first layer
# brings them to -1…1, with no parameters to learn: x/127.5 - 1.

# %%
model = kerascnn.lecture_cnn()
scale = model.get_layer("scale")
given = np.zeros((1, 32, 32, 3), np.uint8)
given[0, 0, 0] = (0, 255, 51)
received = np.asarray(scale(given))[0, 0, 0]
print(f"(0, 255, 51) becomes {received}")
assert scale.count_params() == 0
assert np.allclose(received, (-1, 1, 51 / 127.5 - 1)) and np.isclose(received[2], -0.6)

# %% [markdown]
# ## Summary
#
# - A grey image is one number for each pixel, 0 to 255, in rows and columns: the
#   slide's S is 9·7 = 63 bytes.
# - A colour image is three: 32·32·3 = 3,072 bytes.
# - The list of numbers is only half of the picture; the other half is who is beside
#   whom.
# - Neighbours are alike. That is what a convolution will make use of.
#
# ## Exercises
#
# 1. Turn the S into its mirror image, and by a quarter, with indexing alone. Which of
#    the two has another shape?
# 2. Which row, column and channel is number 2,000 of the 3,072?
# 3. A program reads the slide's colours in the order blue, green, red, as OpenCV does.
#    Which colour does it take the orange for?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. The quarter turn has 7 rows of 9. Both have the same 63 numbers.
mirrored, turned = grey[:, ::-1], grey.T[:, ::-1]
assert mirrored.shape == (9, 7) and turned.shape == (7, 9)
assert mirrored[4, 6 - 3] == 5 and turned[3, 8 - 4] == 5
assert np.array_equal(np.sort(turned, axis=None), np.sort(x))

# 2. 2,000 = 20·96 + 26·3 + 2: row 20, column 26, blue.
assert [int(n) for n in np.unravel_index(2_000, (32, 32, 3))] == [20, 26, 2]
assert 20 * 96 + 26 * 3 + 2 == 2_000

# 3. A blue: (73, 136, 255). No error is raised, and the network just gets worse.
assert rgb[0, 1, ::-1].tolist() == [73, 136, 255]
print("All numbers of this tutorial hold.")
