# %% [markdown]
# # 12 GoogLeNet: an inception module by parts
#
# **What you will learn.** What the four branches (가지) of an inception module (인셉션
# 모듈) are and how they are joined; why it looks at several sizes side by side; what
# its 1x1 convolutions save, in weights and in multiplications; and why GoogLeNet has a
# twentieth of the parameters (매개변수) of VGG19, only a part of which is owed to its
# modules.
#
# **Time.** Half a minute. Nothing is trained here.
#
# Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv 1409.4842.
# Every number in the prose is asserted.

# %%
import os
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import arithmetic
from zoo.googlenet import COLUMNS, TABLE
from zoo.vgg import BLOCKS, DENSE

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"

# %% [markdown]
# ## Which filter size?
#
# The lecture's network uses filters (필터) of 5x5, VGG only 3x3. Which is right depends
# on the size of what is to be found, and that differs from image to image. GoogLeNet
# does not choose: each module applies 1x1, 3x3 and 5x5 filters to the same input, and
# lets the next layer take what it needs.
#
# Here is the idea with the package's own module, and one hand-made filter in each
# branch. The image has three bright squares, of 1, 3 and 5 pixels. Each filter is a
# square too, scaled to length 1: k·k weights of 1/k.

# %%
image = np.zeros((1, 13, 25, 1), np.float32)
CENTRES = {1: 4, 3: 11, 5: 19}  # size of the square: its column
for size, column in CENTRES.items():
    reach = size // 2
    image[0, 6 - reach : 7 + reach, column - reach : column + reach + 1] = 1

tiny_input = keras.Input((13, 25, 1))
tiny = keras.Model(
    tiny_input, kerascnn.inception_block(tiny_input, 1, 1, 1, 1, 1, 1, name="tiny")
)
for layer in tiny.layers:
    if isinstance(layer, keras.layers.Conv2D):
        side = layer.kernel_size[0]
        layer.set_weights([np.full((side, side, 1, 1), 1 / side), np.zeros(1)])
answers = keras.ops.convert_to_numpy(tiny(image))[0]
at_centres = {size: answers[6, column] for size, column in CENTRES.items()}
for size, values in at_centres.items():
    print(f"square of {size}: 1x1 {values[0]:.2f}, 3x3 {values[1]:.2f}, "
          f"5x5 {values[2]:.2f}, pooling {values[3]:.2f}")  # fmt: skip

# %% [markdown]
# At the centre of the single pixel the 1x1 branch is the strongest, with 1 against 1/3
# and 1/5; at the square of 3 pixels the 3x3 branch, with 9/3 = 3 against 1 and 9/5; at
# the square of 5 pixels the 5x5 branch, with 25/5 = 5 against 1 and 3. Whoever reads
# all branches knows the size as well as the place.

# %%
expected = {1: (1, 1 / 3, 1 / 5, 1), 3: (1, 3, 9 / 5, 1), 5: (1, 3, 5, 1)}
for size, values in at_centres.items():
    assert np.allclose(values, expected[size], atol=1e-5)
    assert {1: 0, 3: 1, 5: 2}[size] == int(values[:3].argmax())

# %% tags=["hide-input"]
figure = Figure(figsize=(10, 3.8), layout="constrained")
figure.suptitle("One module, four branches: the strongest one tells the size")
titles = ("1x1 branch", "3x3 branch", "5x5 branch", "pooling branch")
panels = [("the image", image[0, :, :, 0])]
panels += [(title, answers[:, :, i]) for i, title in enumerate(titles)]
grid = figure.subplots(2, 3).ravel()
for axes, (title, values) in zip(grid, panels, strict=False):
    shown = axes.imshow(values, cmap="viridis", vmin=0, vmax=5)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("column (pixels)", fontsize=8)
    axes.set_ylabel("row (pixels)", fontsize=8)
grid[-1].set_axis_off()
figure.colorbar(shown, cax=grid[-1].inset_axes([0.1, 0.05, 0.07, 0.9]), label="value")
figure.savefig(FIGURES / "12_scales.png", dpi=150)

# %% [markdown]
# *The picture `12_scales.png` shows the image with its three squares, and the map of
# each branch in the same colours: the 1x1 map is the image again, the 3x3 map is
# brightest in the middle of the square of 3 pixels and inside that of 5, the 5x5 map in
# the middle of the largest. The pooling map has each square grown by a pixel on every
# side.*
#
# ## The module by parts
#
# Now the first module of the paper, 3a. Its input is 28x28 with 192 channels (채널). A
# row of the paper's Table 1 is all there is to say about it:

# %%
row = dict(zip(COLUMNS, TABLE["3a"], strict=True))
print(row)
assert row == {
    "1x1": 64,
    "3x3_reduce": 96,
    "3x3": 128,
    "5x5_reduce": 16,
    "5x5": 32,
    "pool_proj": 32,
}

x = keras.Input((28, 28, 192))
module = keras.Model(
    x, kerascnn.inception_block(x, *TABLE["3a"], name="3a"), name="inception_3a"
)
summary = kerascnn.summarize(module)
print(summary)

# %% [markdown]
# All four branches have stride (스트라이드) 1 and a padding (패딩) that keeps 28x28,
# the pooling (풀링) too: only then can their outputs be laid on one another. The
# concatenation (연결) does just that and nothing else: 64 + 128 + 32 + 32 = 256
# channels. A value of the output sees 1, 3 or 5 pixels of the input each way.

# %%
assert module.output_shape == (None, 28, 28, 256)
assert 64 + 128 + 32 + 32 == 256
ends = ("3a_1x1", "3a_3x3", "3a_5x5", "3a_pool_proj")
fields = {r.name: r.receptive_field for r in summary.rows}
assert [fields[name] for name in ends] == [(1, 1), (3, 3), (5, 5), (3, 3)]

branches = keras.Model(x, [module.get_layer(name).output for name in ends])
noise = np.random.default_rng(0).normal(size=(1, 28, 28, 192)).astype(np.float32)
parts = [keras.ops.convert_to_numpy(part) for part in branches(noise)]
whole = keras.ops.convert_to_numpy(module(noise))
assert np.allclose(np.concatenate(parts, axis=-1), whole, atol=1e-5)

# %% [markdown]
# ## What the 1x1 convolution saves
#
# A 1x1 convolution (합성곱) has no window to speak of. At each pixel it makes new
# channels as weighted sums of the old ones: a small fully-connected layer, the same at
# every pixel. In front of the 5x5 filters, GoogLeNet puts one that makes 16 channels
# out of 192. Compare the 5x5 branch with and without:

# %%
direct = arithmetic.convolution_parameters(5, 192, 32)
reduce = arithmetic.convolution_parameters(1, 192, 16)
after = arithmetic.convolution_parameters(5, 16, 32)
print(f"5x5 on all 192 channels: {direct}")
print(f"1x1, then 5x5 on 16:     {reduce}, and {after}")
assert (direct, reduce, after) == (153_600, 3_072, 12_800)
assert reduce + after == 15_872
assert round(direct / (reduce + after), 1) == 9.7

# %% [markdown]
# 153,600 weights become 15,872, a factor of 9.7. At stride 1 each weight is used at all
# 28·28 positions, so the multiplications fall by the same factor, from 120 million to
# 12.4 million for one image.

# %%
assert arithmetic.convolution_macs(28, 5, 192, 32) == 153_600 * 784 == 120_422_400
spent = arithmetic.convolution_macs(28, 1, 192, 16)
spent += arithmetic.convolution_macs(28, 5, 16, 32)
assert spent == 12_443_648

# %% [markdown]
# The same for the whole module. Without the reductions, 1x1, 3x3 and 5x5 filters on all
# 192 channels have 387,072 weights. With them, and with the 1x1 convolution after the
# pooling, there are 163,328: 42 %. The biases (편향), one for each filter, make it
# 163,696, which is what Keras counts.


# %%
def weights(channels, filters, *, reduced):
    """Weights of a module without biases, with or without its 1x1 reductions."""
    one, three_reduce, three, five_reduce, five, projection = filters
    if not reduced:
        return channels * (one + 9 * three + 25 * five)
    count = channels * (one + three_reduce + five_reduce + projection)
    return count + 9 * three_reduce * three + 25 * five_reduce * five


assert weights(192, TABLE["3a"], reduced=False) == 387_072
assert weights(192, TABLE["3a"], reduced=True) == 163_328
assert round(100 * 163_328 / 387_072) == 42
assert 163_328 + sum(TABLE["3a"]) == 163_696 == module.count_params()
assert summary.macs == 163_328 * 784 == 128_049_152

# %% [markdown]
# ## Nine modules in a row
#
# One saving is more important than that of a single module. Pooling has no filters, so
# without the projection its branch hands on every channel that it is given, and the
# module's output is wider than its input, whatever the other branches do. Module after
# module the channels pile up. Let us build the network of nine modules both ways, on
# paper:

# %%
SIDES = {"3": 28, "4": 14, "5": 7}
print("module  channels in    weights  without 1x1: channels in     weights")
channels = naive_channels = 192
totals = {"weights": 0, "biases": 0, "macs": 0, "naive weights": 0, "naive macs": 0}
per_module = {}
for name, filters in TABLE.items():
    own = weights(channels, filters, reduced=True)
    naive = weights(naive_channels, filters, reduced=False)
    print(f"{name:<8}{channels:>11,}{own:>11,}{naive_channels:>26,}{naive:>12,}")
    places = SIDES[name[0]] ** 2
    totals["weights"] += own
    totals["biases"] += sum(filters)
    totals["macs"] += own * places
    totals["naive weights"] += naive
    totals["naive macs"] += naive * places
    per_module[name] = (own, naive)
    one, _, three, _, five, projection = filters
    channels = one + three + five + projection
    naive_channels += one + three + five  # and all that the pooling passes on
print(f"out     {channels:>11,}{naive_channels:>37,}")

# %% [markdown]
# The paper's modules end with 1,024 channels and 5.8 million parameters. Those without
# 1x1 convolutions would end with 4,944 channels and 92 million weights, 16 times as
# many, and do 12.1 billion multiplications for an image in place of 1.1 billion, 11
# times as many.

# %%
assert (channels, naive_channels) == (1_024, 4_944)
assert totals["weights"] + totals["biases"] == 5_849_136
assert totals["naive weights"] == 92_451_840
assert round(totals["naive weights"] / totals["weights"]) == 16
assert totals["macs"] == 1_103_972_352
assert totals["naive macs"] == 12_085_441_536
assert round(totals["naive macs"] / totals["macs"]) == 11

# %% tags=["hide-input"]
figure = Figure(figsize=(8, 4), layout="constrained")
axes = figure.subplots()
places = np.arange(len(per_module))
for shift, which, label, colour, hatch in (
    (-0.2, 0, "as published", BLUE, ""),
    (0.2, 1, "without 1x1 convolutions", ORANGE, "//"),
):
    heights = [counts[which] / 1e6 for counts in per_module.values()]
    axes.bar(places + shift, heights, 0.4, color=colour, label=label, hatch=hatch)
axes.set_xticks(places, per_module)
axes.set_yscale("log")
axes.set_xlabel("inception module, from the first to the last")
axes.set_ylabel("weights (millions, logarithmic)")
axes.set_title("What the 1x1 convolutions save in each module of GoogLeNet")
axes.grid(axis="y", alpha=0.3)
axes.legend()
figure.savefig(FIGURES / "12_savings.png", dpi=150)

# %% [markdown]
# *The picture `12_savings.png` has two bars for each of the nine modules, on a
# logarithmic axis. As published they grow from 0.16 to 1.4 million weights; without 1x1
# convolutions from 0.39 to 28 million: the gap widens from module to module.*
#
# ## The whole network, against VGG19
#
# Before the modules come three convolutions; after them the mean of each of the 1,024
# maps (global average pooling, 전역 평균 풀링) and one fully-connected layer to the
# 1,000 classes of ImageNet.

# %%
stem = (
    arithmetic.convolution_parameters(7, 3, 64, bias=True)
    + arithmetic.convolution_parameters(1, 64, 64, bias=True)
    + arithmetic.convolution_parameters(3, 64, 192, bias=True)
)
head = arithmetic.dense_parameters(1_024, 1_000, bias=True)
print(f"stem {stem:,}, modules {5_849_136:,}, classifier {head}")
assert (stem, head) == (124_416, 1_025_000)
assert stem + 5_849_136 + head == 6_998_552

googlenet = kerascnn.card("googlenet_imagenet")
vgg19 = kerascnn.card("vgg19_imagenet")
print(kerascnn.compare("googlenet_imagenet", "vgg19_imagenet", "googlenet", "vgg19"))
assert googlenet.trainable == 6_998_552 and vgg19.trainable == 143_667_240
assert round(vgg19.trainable / googlenet.trainable, 1) == 20.5
assert round(vgg19.macs / googlenet.macs, 1) == 12.4
assert (googlenet.depth, vgg19.depth) == (22, 19)

# %% [markdown]
# GoogLeNet is deeper than VGG19, 22 layers with weights on the longest way against 19,
# and has 6,998,552 parameters against 143,667,240: VGG19 has 20.5 times as many, and
# does 12.4 times as many multiplications.
#
# How much of that is due to the modules? Less than one would think. VGG19 spends
# 123,642,856 parameters on its three fully-connected layers. Give it GoogLeNet's end,
# global average pooling and one layer of 512·1000 weights, and it has 20.5 million: 2.9
# times GoogLeNet's. So of the factor 20.5, the head accounts for a factor of 7.0, and
# the modules for 2.9. For the multiplications it is the other way round: VGG19's
# fully-connected layers do less than 1 % of them, and the factor of 12.4 is owed to the
# convolutions alone.

# %%
blocks = BLOCKS["vgg19"]
vgg_convolutions, inputs = 0, 3
for count, filters in blocks:
    for _ in range(count):
        vgg_convolutions += 9 * inputs * filters + filters
        inputs = filters
vgg_head = arithmetic.mlp_parameters(7 * 7 * 512, *DENSE, 1_000, bias=True)
assert vgg_head == 123_642_856
assert vgg_convolutions + vgg_head == vgg19.trainable
with_pooling = vgg_convolutions + arithmetic.dense_parameters(512, 1_000, bias=True)
print(f"VGG19 with global average pooling: {with_pooling:,}")
assert round(with_pooling / 1e6, 1) == 20.5
assert round(vgg19.trainable / with_pooling, 1) == 7.0
assert round(with_pooling / googlenet.trainable, 1) == 2.9
assert arithmetic.mlp_parameters(7 * 7 * 512, *DENSE, 1_000) / vgg19.macs < 0.01

# %% [markdown]
# For training, the paper attaches two more classifiers, to the modules 4a and 4d. Their
# losses (손실) are added with a weight of 0.3, so that the gradient (기울기) reaches
# the early layers on a shorter way, and they are taken off afterwards. They have
# 6,379,728 parameters, almost as many as the rest, most of them in two fully-connected
# layers of 2048·1024.

# %%
auxiliary = 0
for channels in (512, 528):  # the outputs of 4a and 4d
    auxiliary += arithmetic.convolution_parameters(1, channels, 128, bias=True)
    auxiliary += arithmetic.mlp_parameters(4 * 4 * 128, 1_024, 1_000, bias=True)
assert auxiliary == 6_379_728
assert 6_998_552 + auxiliary == 13_378_280

if not SMOKE:  # building takes some seconds, counting by hand does not
    built = kerascnn.googlenet_imagenet()
    assert built.count_params() == 6_998_552
    assert kerascnn.summarize(built).macs == 1_582_671_872

# %% [markdown]
# ## Summary
#
# - A module is four branches side by side: 1x1, 3x3, 5x5 and a pooling; their channels
#   are laid on one another: 64 + 128 + 32 + 32 = 256 in module 3a.
# - 1x1 convolutions before the large filters save 9.7 times in the 5x5 branch of 3a;
#   after the pooling they keep the channels from piling up: 92 million weights without,
#   5.8 million with.
# - GoogLeNet has 6,998,552 parameters, VGG19 143,667,240: 20.5 times as many. A factor
#   of 7.0 is owed to the end without large dense layers, 2.9 to the modules.
#
# ## Exercises
#
# 1. Replace the 5x5 filters of module 3a by two 3x3 filters in a row, 32 of each
#    (`double_3x3=True`). How many parameters does the module have then? Why does this
#    not save as much here as in VGG?
# 2. In which module is the share of the weights that lie in 1x1 convolutions the
#    largest, and how large is it?
# 3. What would the 1x1 reduction before the 3x3 filters of 3a have to shrink to, for
#    the 3x3 branch to have no more weights than the 5x5 branch?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. Instead of 25·16·32 = 12,800 weights there are 9·16·32 + 9·32·32 = 13,824, and 32
#    biases more: 1,056 parameters more. Two 3x3 save where the number of channels stays
#    the same; here the second reads 32 channels, while the 5x5 filter read only 16.
y = keras.Input((28, 28, 192))
double = keras.Model(y, kerascnn.inception_block(y, *TABLE["3a"], double_3x3=True))
assert 9 * 16 * 32 + 9 * 32 * 32 - 25 * 16 * 32 + 32 == 1_056
assert double.count_params() == 163_696 + 1_056 == 164_752


# 2. In 4a: 47 %. Only 1x1 filters read the input of a module, and that of 4a has become
#    almost twice as wide as that of 3b, while its 3x3 and 5x5 filters have a third
#    fewer weights: 9·96·208 + 25·16·48 = 198,912 against 297,984.
def share_of_1x1(channels, filters):
    one, three_reduce, _, five_reduce, _, projection = filters
    pointwise = channels * (one + three_reduce + five_reduce + projection)
    return pointwise / weights(channels, filters, reduced=True)


widths = (192, 256, 480, 512, 512, 512, 528, 832, 832)
shares = {
    name: share_of_1x1(width, filters)
    for width, (name, filters) in zip(widths, TABLE.items(), strict=True)
}
print({name: f"{share:.0%}" for name, share in shares.items()})
assert max(shares, key=shares.get) == "4a" and round(100 * shares["4a"]) == 47

# 3. r·192 + 9·r·128 = 1,344·r is at most 15,872 for r = 11: a tenth of 3a's 96.
assert 192 + 9 * 128 == 1_344
assert 15_872 // 1_344 == 11
print("All numbers of this tutorial hold.")
