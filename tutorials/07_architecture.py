# %% [markdown]
# # 07 The architecture: 33,120 parameters against 34,083,840
#
# **What you will learn.** How the data's shape changes from an image to ten class
# probabilities; where each parameter (매개변수) of the lecture's convolutional neural
# network (합성곱 신경망) is; how many a fully-connected network (완전 연결 신경망)
# over the same volumes has; how 512 numbers become ten probabilities, and one loss; and
# why one of the lecture's numbers is wrong.
#
# **Time.** A few seconds. Nothing is trained here.
#
# Every number below is computed, and every number in the prose is asserted: if this
# script runs to its end, its text is true.

# %%
from pathlib import Path

import keras
import matplotlib.cbook
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import kerascnn
from kerascnn import arithmetic, explain
from kerascnn.data.cifar10 import LABELS

FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One layer by hand
#
# The image is 32 pixels high and wide and has 3 channels (채널). The first
# convolution (합성곱) has filters (필터) of 5x5, a padding (패딩) of 2 and a stride
# (스트라이드) of 1. The formula of the lecture, O = (I + 2P - F)/S + 1, gives the
# size of its output:

# %%
size = arithmetic.output_size(32, 5, stride=1, padding=2)
print(f"CONV1: {size}")
assert size == 32

pooled = arithmetic.pooling_size(32, 2)
print(f"POOL1: {pooled}")
assert pooled == 16

# %% [markdown]
# A filter covers 5·5 pixels of all 3 channels: 75 weights. There are 32 filters, and
# the lecture gives them no biases (편향):

# %%
conv1 = arithmetic.convolution_parameters(5, 3, 32)
conv2 = arithmetic.convolution_parameters(5, 32, 16)
conv3 = arithmetic.convolution_parameters(5, 16, 32)
fc = arithmetic.dense_parameters(4 * 4 * 32, 10)
for name, count in (("CONV1", conv1), ("CONV2", conv2), ("CONV3", conv3), ("FC", fc)):
    print(f"{name}: {count}")
assert (conv1, conv2, conv3, fc) == (2_400, 12_800, 12_800, 5_120)
assert conv1 + conv2 + conv3 + fc == 33_120

# %% [markdown]
# Pooling (풀링) has no parameters: it takes the greatest of four numbers, and there is
# nothing to learn in that. Note where the weights are: not in the fully-connected part,
# as in most networks of the time, but in the middle, because each filter of CONV2 reads
# all 32 maps of CONV1.
#
# ## The whole network
#
# `kerascnn.summarize` shows the same arithmetic for any Keras model. The receptive
# field (수용 영역) in the last column, "Sees", is the part of the image that one number
# of a layer can see: 5x5 after CONV1, 14x14 after CONV2, which sees 5 numbers of POOL1,
# each of them 2 pixels further and 6 pixels wide.

# %%
model = kerascnn.lecture_cnn()
summary = kerascnn.summarize(model)
print(summary)
assert summary.parameters == model.count_params() == 33_120
assert model.output_shape == (None, 10)
assert model.get_layer("pool3").output.shape == (None, 4, 4, 32)
assert arithmetic.receptive_field([(5, 1)]) == 5
assert arithmetic.receptive_field([(5, 1), (2, 2), (5, 1)]) == 14 == 6 + 4 * 2

explain.volumes(model).plot(FIGURES / "07_volumes.png")

# %% [markdown]
# *`07_volumes.png` shows the image on its way: each convolution makes as many channels
# as it has filters, 32, 16 and 32, and each pooling halves height and width, until
# 4x4x32 numbers are left, which are laid out in a row of 512; below each, what it costs
# in parameters and in work.*
#
# Keras gives every convolution a bias unless it is told not to. With biases there are
# 32 + 16 + 32 + 10 = 90 parameters more, and you will see 33,210 wherever the network
# is written without `use_bias=False`:

# %%
with_biases = kerascnn.lecture_cnn(use_bias=True)
assert with_biases.count_params() == 33_210 == 33_120 + 32 + 16 + 32 + 10

# %% [markdown]
# ## The fully-connected network over the same volumes
#
# How many parameters would it take without convolution? The lecture takes each
# convolution with its pooling as one hidden layer (은닉층): the layers have as many
# units as the volumes have numbers. `mlp_twin` reads these off the network.

# %%
twin = kerascnn.mlp_twin(model)
print(twin)
assert twin.sizes == (3_072, 8_192, 1_024, 512, 10)
assert twin.sizes[1:4] == (16 * 16 * 32, 8 * 8 * 16, 4 * 4 * 32)
assert twin.parameters == 34_083_840

# %% [markdown]
# The slide says 35,107,840. Its own products do not sum to that: it is 1,024,000 too
# high, which is 1,000 times the 1,024 units of the second hidden layer. The ratio is
# not changed much by the slip: the MLP has 1,029 times as many parameters.

# %%
products = (3_072 * 8_192, 8_192 * 1_024, 1_024 * 512, 512 * 10)
assert sum(products) == 34_083_840
assert 35_107_840 - sum(products) == 1_024_000
assert round(sum(products) / 33_120) == 1_029
assert kerascnn.card("dense_mlp").trainable == sum(products)

rows = {
    "CNN": {"CONV1": conv1, "CONV2": conv2, "CONV3": conv3, "FC": fc},
    "MLP": {f"FC{i}": count for i, count in enumerate(products, start=1)},
}

# %% tags=["hide-input"]
figure = Figure(figsize=(9, 4.6), layout="constrained")
axes = figure.subplots()
for name, colour, hatch in (("MLP", "#D55E00", "//"), ("CNN", "#0072B2", "")):
    for layer, count in reversed(rows[name].items()):
        bar = axes.barh(
            f"{name} {layer}", count, color=colour, hatch=hatch, edgecolor="white"
        )
        axes.bar_label(bar, [f"{count:,}"], padding=4)
axes.set_xscale("log")
axes.set_xlim(1_000, 300_000_000)
axes.set_xlabel("parameters (each line is ten times the one before)")
axes.set_title("33,120 parameters against 34,083,840, layer by layer")
axes.spines[["top", "right"]].set_visible(False)
axes.xaxis.grid(True, alpha=0.3)
axes.set_axisbelow(True)
figure.savefig(FIGURES / "07_parameters.png", dpi=150)
assert products[0] == 25_165_824 > 700 * sum(rows["CNN"].values())

# %% [markdown]
# *`07_parameters.png` has a bar for each layer of the two networks, on a scale on which
# each line is ten times the one before. The first layer of the MLP alone, 25,165,824
# weights between 3,072 pixels and 8,192 units, has more than 700 times what the whole
# CNN has.*

# %% [markdown]
# ## What the parameters cost
#
# Few parameters do not mean little work: a filter is used at every position. CONV1
# has 2,400 weights and does 2,457,600 multiplications an image, as each weight is
# used at 32·32 positions. The MLP uses each weight once. So the CNN has 1,029 times
# fewer parameters, but does only about 5 times less work.

# %%
assert arithmetic.convolution_macs(32, 5, 3, 32) == 2_400 * 32 * 32 == 2_457_600
assert summary.macs == 6_558_720
assert round(34_083_840 / summary.macs, 1) == 5.2
print(kerascnn.compare("lecture_cnn", "dense_mlp", "linear"))

# %% [markdown]
# ## One photograph, all the way
#
# What do the volumes hold? Here is a photograph (of Grace Hopper, who wrote the first
# compiler; matplotlib brings it along) in 32x32 pixels, and the network with the
# weights that it learned on CIFAR-10.

# %%
with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
    portrait = Image.open(file).convert("RGB")
photo = np.asarray(portrait.crop((96, 0, 416, 320)).resize((32, 32)))
trained = kerascnn.load("lecture_cnn")
names = ("conv1", "pool1", "conv2", "pool2", "conv3", "pool3")
taps = [trained.get_layer(name).output for name in names]
*volumes, probabilities = (
    keras.ops.convert_to_numpy(each)[0].astype("float32")
    for each in keras.Model(trained.input, [*taps, trained.output])(photo[None])
)
assert [v.shape for v in volumes] == [
    *((32, 32, 32), (16, 16, 32), (16, 16, 16), (8, 8, 16), (8, 8, 32), (4, 4, 32))
]


def tiles(volume):
    """All maps of a volume, four in a row, with a line between."""
    size, maps = volume.shape[0], volume.shape[-1]
    room = np.pad(volume, ((0, 1), (0, 1), (0, 0)), constant_values=np.nan)
    room = room.reshape(size + 1, size + 1, maps // 4, 4)
    return room.transpose(2, 0, 3, 1).reshape(maps // 4 * (size + 1), 4 * (size + 1))


# %% tags=["hide-input"]
figure = Figure(figsize=(14, 4.8), layout="constrained")
grid = figure.subplots(1, 8, width_ratios=[1, 1, 1, 1, 1, 1, 1, 1.2])
grid[0].imshow(photo)
grid[0].set_title("image\n32x32x3")
for axes, name, volume in zip(grid[1:], names, volumes, strict=False):
    axes.imshow(tiles(volume), cmap="viridis", vmin=0)
    axes.set_title(f"{name.upper()}\n{'x'.join(map(str, volume.shape))}")
for axes in grid[:7]:
    axes.set_axis_off()
order = probabilities.argsort()
grid[7].barh([LABELS[k] for k in order], 100 * probabilities[order], color="#0072B2")
grid[7].set_xlabel("probability (%)")
grid[7].set_title("answer\n10")
figure.suptitle("One photograph through all maps of the lecture's CNN")
figure.savefig(FIGURES / "07_photograph.png", dpi=120)

# %% [markdown]
# *`07_photograph.png` shows the photograph, then all maps of each layer, bright where a
# filter found what it looks for. In those of CONV1 one recognises the person; each
# pooling halves them; of 4x4 pixels nothing can be recognised any more, and which of
# the 32 maps are bright is what is left. To the right the ten probabilities.*
#
# ## From maps to an answer
#
# Three steps are left. **Flatten** (평탄화): the 4x4x32 numbers become a row of 512;
# nothing is computed. **Fully connected** (완전 연결): each class has 512 weights, one
# for each number, and its score is the sum of the 512 products. **Softmax**
# (소프트맥스): the score z of each class becomes eᶻ, divided by the sum over all
# ten, so that all are above 0 and add up to 1.

# %%
row = volumes[-1].reshape(512)
weights = keras.ops.convert_to_numpy(trained.get_layer("fc").kernel).astype("float32")
assert weights.shape == (512, 10)
scores = row @ weights  # ten sums of 512 products
powers = np.exp(scores - scores.max())  # the same factor above and below
ours = powers / powers.sum()
for k in scores.argsort()[::-1][:3]:
    print(f"{LABELS[k]:<10} score {scores[k]:6.2f}, probability {100 * ours[k]:.1f} %")
assert np.abs(ours - probabilities).max() < 1e-3
assert np.isclose(ours.sum(), 1) and (ours > 0).all()

# %% [markdown]
# There is no class for a person, and no answer "none of these": the ten have to share
# 100 %, whatever is shown.
#
# ## The loss
#
# Training needs one number that says how wrong the ten are. It is the cross-entropy
# (교차 엔트로피): minus the logarithm of the probability that the *true* class was
# given. Who gives it 100 % pays 0, who gives it 10 %, as a network that knows nothing
# does, pays 2.30, and who gives it 1 % pays 4.61.

# %%
loss = keras.losses.SparseCategoricalCrossentropy()
for share, expected in ((1.0, 0.0), (0.1, 2.30), (0.01, 4.61)):
    answer = np.full((1, 10), (1 - share) / 9, "float32")
    answer[0, 3] = share  # the true class is number 3
    assert round(-np.log(share), 2) == expected
    assert abs(float(loss(np.array([3]), answer)) - expected) < 0.01

# %% [markdown]
# ## The lecture's four questions
#
# 1. What happens from tensor to tensor? A volume of height x width x channels becomes
#    another: with a channel for each filter, half as high and wide after each pooling,
#    and still arranged as the image is.
# 2. What are convolution, pooling and fully-connected layers? A weighted sum in a
#    window, the same at every place; the greatest of each window; a weighted sum of
#    everything.
# 3. How are features extracted? By filters that training finds by the gradient of this
#    loss, each layer reading the maps of the one before (tutorial 04).
# 4. Does it use fewer parameters? 33,120 against 34,083,840: a thousandth.
#
# ## Summary
#
# - 32x32x3 → 16x16x32 → 8x8x16 → 4x4x32 → 512 → 10.
# - 2,400 + 12,800 + 12,800 + 5,120 = 33,120 parameters, and none in the pooling.
# - The fully-connected network over the same volumes has 34,083,840, not 35,107,840.
# - Sharing weights saves parameters more than work: 1,029 times against 5.
#
# ## Exercises
#
# 1. The images become 64x64. Which layers' parameters change, and to how many in all?
# 2. Leave out POOL3. What does that do to the number of parameters?
# 3. Replace each 5x5 filter by two 3x3 filters one after the other. What is the
#    receptive field of the two, and how many parameters do the two that replace CONV2
#    have, with 16 maps between them?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. Only the dense layer's: 8·8·32·10 instead of 4·4·32·10. A convolution does not know
#    how large its image is.
larger = kerascnn.lecture_cnn((64, 64, 3))
assert larger.get_layer("fc").count_params() == 8 * 8 * 32 * 10 == 20_480
assert larger.count_params() == 2_400 + 12_800 + 12_800 + 20_480 == 48_480

# 2. The dense layer reads 8·8·32 numbers instead of 4·4·32: 15,360 parameters more.
assert 8 * 8 * 32 * 10 - fc == 15_360

# 3. The same field, 5x5, with 6,912 parameters instead of 12,800.
field = arithmetic.receptive_field([(3, 1), (3, 1)])
assert field == arithmetic.receptive_field([(5, 1)]) == 5
two = (
    arithmetic.convolution_parameters(3, 32, 16),
    arithmetic.convolution_parameters(3, 16, 16),
)
assert sum(two) == 4_608 + 2_304 == 6_912
print("All numbers of this tutorial hold.")
