# %% [markdown]
# # 07 The architecture: 33,120 parameters against 34,083,840
#
# **What you will learn.** How the data's shape changes from an image to ten class
# probabilities; where each parameter (매개변수) of the lecture's convolutional neural
# network (합성곱 신경망) is; how many a fully-connected network (완전 연결 신경망)
# over the same volumes has; and why one of the lecture's numbers is wrong.
#
# **Time.** A few seconds. Nothing is trained here.
#
# Every number below is computed, and every number in the prose is asserted: if this
# script runs to its end, its text is true.

# %%
import kerascnn
from kerascnn import arithmetic

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
# Pooling (풀링) has no parameters: it takes the greatest of four numbers, and there
# is nothing to learn in that. Note where the weights are: not in the last layer, as
# in most networks of the time, but in the middle, because each filter of CONV2 reads
# all 32 maps of CONV1.
#
# ## The whole network
#
# `kerascnn.summarize` shows the same arithmetic for any Keras model. The receptive
# field (수용 영역) in the last columns is the part of the image that one number of a
# layer can see: 5x5 after CONV1, 14x14 after CONV2.

# %%
model = kerascnn.lecture_cnn()
summary = kerascnn.summarize(model)
print(summary)
assert summary.parameters == model.count_params() == 33_120
assert model.output_shape == (None, 10)
assert model.get_layer("pool3").output.shape == (None, 4, 4, 32)

# %% [markdown]
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
