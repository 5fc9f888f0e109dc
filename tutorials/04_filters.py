# %% [markdown]
# # 04 Filters: what they respond to, and how they are found
#
# **What you will learn.** Why a filter (필터) of nine numbers responds to a diagonal
# stroke and to no other; what ReLU has to do with it; how the gradient (기울기) of
# a filter is worked out by hand, and that it is a convolution (합성곱) itself; how
# gradient descent (경사 하강법) finds the diagonal filter without being told of it; and
# what the 32 filters look for that the lecture's network learned on photographs.
#
# **Time.** Half a minute.
#
# As on the slide, white is 0, black is 1, and the activation (활성화 함수) is ReLU,
# max(0, x).

# %%
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import arithmetic, explain
from kerascnn.data.shapes import LABELS, generate

FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A picture with four kinds of strokes
#
# A house of 13x13 pixels has all that we need: a roof that rises (/) and falls (\\),
# two walls (|) and a floor (—).

# %%
house = np.zeros((13, 13))
for k in range(6):
    house[1 + k, 6 - k] = house[1 + k, 6 + k] = 1  # the roof
house[6:12, [1, 11]] = 1  # the walls
house[11, 1:12] = 1  # the floor
print("\n".join("".join(" #"[int(v)] * 2 for v in row) for row in house))
assert house.sum() == 30

# %% [markdown]
# ## The diagonal filter
#
# The falling side of the roof goes along the major diagonal (주대각선): each pixel of
# it is one lower and one further to the right than the one before. The filter that
# suggests itself has ones where the stroke has black pixels.

# %%
naive = np.eye(3)
answers = explain.slide(house, naive)
print(answers.step(2, 7))
assert answers.output.shape == (11, 11, 1)
assert answers.step(2, 7).output == 3  # in the middle of the falling side

# %% [markdown]
# Three black pixels meet three ones: the sum is 3. But this filter has a flaw. It does
# not mind black pixels elsewhere, as they meet zeros: on a wholly black patch it says 3
# as well, and wherever one black pixel meets its diagonal it says 1 at least: in 54 of
# the 121 places of the house it has something to say.

# %%
black = np.ones((3, 3))
assert explain.slide(black, naive).output.item() == 3
assert (answers.output > 0).sum() == 54

# %% [markdown]
# A filter has to say what it does *not* want, too. Let us put -1 beside the diagonal.
# Now a black patch sums to 3 - 6 = -3, a rising stroke or an upright one to 1 - 2 = -1,
# and ReLU turns all of these into 0: no answer. Only the falling stroke keeps its 3.

# %%
diagonal = 2 * np.eye(3) - 1
print(diagonal)
falling, rising = np.eye(3), np.eye(3)[::-1]
upright, level = np.zeros((3, 3)), np.zeros((3, 3))
upright[:, 1] = level[1] = 1
patches = {"\\": falling, "/": rising, "|": upright, "—": level, "black": black}
sums = {
    name: explain.slide(patch, diagonal, relu=False).output.item()
    for name, patch in patches.items()
}
print(sums)
assert sums == {"\\": 3, "/": -1, "|": -1, "—": -1, "black": -3}

# %% [markdown]
# ## Its activation map
#
# Slid over the house, the filter makes one activation map (활성화 맵) of 11x11 numbers.
# It says 3 in four places, all of them on the falling side of the roof. Nine other
# places say 1: there, one black pixel more lies on the filter's diagonal than beside
# it.

# %%
found = explain.slide(house, diagonal)
print(found)
places = np.argwhere(found.output[..., 0] == 3)
assert places.tolist() == [[1 + k, 6 + k] for k in range(4)]
assert (found.output == 1).sum() == 9 and found.output.size == 121
# A place of the map is the top left corner of its window; the middle is one further.
assert all(house[row + 1, column + 1] == 1 for row, column in places)
found.plot(FIGURES / "04_step.png", step=17, inverted=True)
assert found.steps[17].output == 3

# %% [markdown]
# `04_step.png` shows one step: the house with the window on the falling side of the
# roof, the nine products, whose sum is 3, and the map as far as it has come.
#
# ## Other filters respond to other features
#
# Turned around, the same nine numbers respond to the rising side; with the 1s in the
# middle column, to the walls; with the 1s in the middle row, to the floor. Four filters
# make four maps: a tensor (텐서) of 11x11x4. Keras' convolution gives the same numbers.

# %%
names = ["falling \\", "rising /", "upright |", "level —"]
filters = np.stack([2 * patches[p] - 1 for p in ("\\", "/", "|", "—")], -1)
four = explain.slide(house, filters[:, :, None])
assert four.output.shape == (11, 11, 4)
by_keras = keras.ops.relu(
    keras.ops.conv(
        house[None, ..., None].astype("float32"),
        filters[:, :, None].astype("float32"),
        padding="valid",
    )
)
assert np.array_equal(keras.ops.convert_to_numpy(by_keras)[0], four.output)
threes = (four.output == 3).sum((0, 1)).tolist()
print(dict(zip(names, threes, strict=True)))
assert threes == [4, 4, 6, 7]

# %% tags=["hide-input"]
figure = Figure(figsize=(13, 5.2), layout="constrained")
grid = figure.subplots(2, 5)
grid[1, 0].imshow(house, cmap="gray_r")
grid[1, 0].set_title("house")
grid[0, 0].set_axis_off()
for k, name in enumerate(names):
    top, bottom = grid[0, k + 1], grid[1, k + 1]
    top.imshow(filters[..., k], cmap="PuOr", vmin=-1.6, vmax=1.6)
    for (i, j), weight in np.ndenumerate(filters[..., k]):
        top.text(j, i, f"{weight:.0f}", ha="center", va="center")
    top.set_title(f"filter: {name}")
    shown = bottom.imshow(four.output[..., k], cmap="viridis", vmin=0, vmax=3)
    bottom.set_title("its map, after ReLU")
    bottom.set_xlabel("column (pixels)")
for axes in grid.ravel():
    axes.set_xticks([])
    axes.set_yticks([])
grid[1, 0].set_ylabel("row (pixels)")
figure.colorbar(shown, ax=list(grid[1]), label="activation")
figure.suptitle("Four filters, four features of one house")
figure.savefig(FIGURES / "04_four_filters.png", dpi=120)

# %% [markdown]
# `04_four_filters.png` shows the four filters as squares of nine numbers, and below
# each its map of the house: one has lit up the falling side of the roof, the next the
# rising side, the third the walls, the fourth the floor.
#
# The maps keep the arrangement of the picture: the falling side is to the right in its
# map because it is to the right in the picture. That is the spatial structure that an
# MLP loses.
#
# ## Filters are parameters
#
# We wrote these filters by hand. A network cannot know beforehand which features will
# be of use, so its filters are parameters (매개변수): they begin as random numbers and
# are moved down the gradient of the loss (손실), which backpropagation (역전파) works
# out. What is that gradient?
#
# Take an arbitrary filter F, and let the loss be the mean squared difference between
# its map O and the map T that we wish for, that of the diagonal filter:
#
#     sum[i, j] = Σ over u, v of house[i + u, j + v] · F[u, v]
#     O[i, j]   = max(0, sum[i, j])
#     L         = 1/121 · Σ over i, j of (O[i, j] - T[i, j])²
#
# By the chain rule (연쇄 법칙), each place of the map sends back an error
#
#     error[i, j] = 2/121 · (O[i, j] - T[i, j]) where the sum is above 0, else 0
#
# and as the weight F[u, v] met the pixel house[i + u, j + v] at that place,
#
#     ∂L/∂F[u, v] = Σ over i, j of house[i + u, j + v] · error[i, j]
#
# Look at the last line once more. It slides the 11x11 errors over the 13x13 house and
# sums the products: the gradient of a filter is a convolution of the image with the
# errors, and has (13 - 11)/1 + 1 = 3 rows and columns, as the filter has.

# %%
wanted = found.output[..., 0]
start = np.array([[0.3, -0.2, 0.1], [0.2, 0.4, -0.1], [-0.3, 0.1, 0.2]])


def loss(weights):
    return ((explain.slide(house, weights).output[..., 0] - wanted) ** 2).mean()


def gradient_by_hand(weights):
    map_ = explain.slide(house, weights).output[..., 0]
    errors = 2 / map_.size * (map_ - wanted) * (map_ > 0)
    return explain.slide(house, errors, relu=False).output[..., 0]


by_hand = gradient_by_hand(start)
print(by_hand.round(4))
assert by_hand.shape == (3, 3)

# %% [markdown]
# Is that right? There are two ways to check. The first is the meaning of a derivative:
# move one weight a little up and a little down, and see how much the loss changes.

# %%
by_difference = np.zeros((3, 3))
for place in np.ndindex(3, 3):
    step = np.zeros((3, 3))
    step[place] = 1e-6
    by_difference[place] = (loss(start + step) - loss(start - step)) / 2e-6
print(f"greatest difference: {np.abs(by_hand - by_difference).max():.0e}")
assert np.allclose(by_hand, by_difference, atol=1e-8)

# %% [markdown]
# The second is automatic differentiation (자동 미분), by which Keras' backends work out
# every gradient. Plain gradient descent with a learning rate (학습률) of 1 subtracts
# the gradient from the weights; so what one step has subtracted *is* the gradient.

# %%
layer = keras.layers.Conv2D(1, 3, activation="relu", use_bias=False)
one_filter = keras.Sequential([keras.Input((13, 13, 1)), layer])
layer.set_weights([start[:, :, None, None]])
one_filter.compile(optimizer=keras.optimizers.SGD(learning_rate=1.0), loss="mse")
one_filter.train_on_batch(house[None, ..., None], wanted[None, ..., None])
by_autodiff = start - layer.get_weights()[0][:, :, 0, 0]
print(f"greatest difference: {np.abs(by_hand - by_autodiff).max():.0e}")
assert np.allclose(by_hand, by_autodiff, atol=1e-6)

# %% [markdown]
# ## The filter finds itself
#
# Now let the gradient do its work. We show a filter of random numbers 16 pictures of
# noise, and tell it what the diagonal filter would have answered: the answers, not the
# filter. Then: the gradient by hand, a step down, and again. All windows of all
# pictures at once are a matrix of 1,936 windows of 9 numbers.


# %%
def windows_of(pictures):
    cut = np.lib.stride_tricks.sliding_window_view(pictures, (3, 3), axis=(1, 2))
    return cut.reshape(-1, 9)


def descend(windows, targets, weights, rate, steps):
    """Return the weights and the loss before the first step and after each."""
    path, losses = [], []
    for _ in range(steps + 1):
        outputs = np.maximum(windows @ weights, 0)
        path.append(weights.reshape(3, 3))
        losses.append(((outputs - targets) ** 2).mean())
        errors = 2 / len(windows) * (outputs - targets) * (outputs > 0)
        weights = weights - rate * windows.T @ errors
    return path, losses


rng = np.random.default_rng(0)
windows = windows_of(rng.normal(size=(16, 13, 13)))
assert windows.shape == (16 * 11 * 11, 9) == (1_936, 9)
targets = np.maximum(windows @ diagonal.ravel(), 0)
path, losses = descend(windows, targets, rng.normal(0, 0.3, 9), rate=0.1, steps=100)
kept = {step: path[step] for step in (0, 5, 10, 20, 100)}
print(path[100].round(3))
print(f"loss {losses[0]:.3f} before, {losses[-1]:.0e} after 100 steps")
assert np.allclose(path[100], diagonal, atol=0.01)

# %% tags=["hide-input"]
figure = Figure(figsize=(11, 3.2), layout="constrained")
panels = figure.subplots(1, 6, width_ratios=(1, 1, 1, 1, 1, 2))
for axes, (step, values) in zip(panels, kept.items(), strict=False):
    axes.imshow(values, cmap="PuOr", vmin=-1.6, vmax=1.6)
    for (i, j), weight in np.ndenumerate(values):
        axes.text(j, i, f"{weight:.2f}", ha="center", va="center", fontsize=8)
    axes.set_title(f"step {step}")
    axes.set_xticks([])
    axes.set_yticks([])
panels[-1].semilogy(losses, color="#0072B2")
panels[-1].set_xlabel("step")
panels[-1].set_ylabel("mean squared error (log scale)")
panels[-1].set_title("loss")
figure.suptitle("Gradient descent finds the diagonal filter")
figure.savefig(FIGURES / "04_learned_by_descent.png", dpi=120)

# %% [markdown]
# `04_learned_by_descent.png` shows the filter's nine numbers after 0, 5, 10, 20 and
# 100 steps: a random pattern turns into 1 on the diagonal and -1 beside it, while the
# loss falls.
#
# ## What a network learned
#
# In a network nobody knows the wanted maps. The error comes from the classes at the far
# end, through all layers, but at each filter the same sum is made. Here is what came of
# it in the lecture's CNN, trained on photographs of CIFAR-10: 32 filters of 5x5x3.

# %%
model = kerascnn.load("lecture_cnn")
learned = explain.filters(model, "conv1")
print(learned)
assert learned.filters.shape == (5, 5, 3, 32)
learned.plot(FIGURES / "04_learned_filters.png")

# %% [markdown]
# `04_learned_filters.png` shows the 32 filters as small colour pictures. Most are
# patterns of colours that no eye makes sense of; in a few one sees a bright stripe
# beside a dark one, upright (7), level (19), or a chequered diagonal (16, 20, 25).
#
# The reason is that most look at colour. Split a filter into the mean of its three
# channels (채널), which sees brightness alone, and the rest, which sets one colour
# against another. In 6 filters the first part has more than half of the squared
# weights, and these are the ones in which one recognises something; in the other 26 it
# is the second.

# %%
weights = learned.filters
brightness = 3 * (weights.mean(2) ** 2).sum((0, 1)) / (weights**2).sum((0, 1, 2))
print("share of brightness:", brightness.round(2))
assert (brightness > 0.5).sum() == 6 and (brightness < 0.5).sum() == 26
assert all(brightness[k] > 0.5 for k in (7, 16, 19, 20, 25))

# %% [markdown]
# Do some of them look for diagonals, as ours did? We can ask them as physiologists ask
# a cell of the brain: show it stripes in one direction after another, in all positions,
# and note its mean answer.

# %%
row, column = np.mgrid[:32, :32]
across = {  # the coordinate along which the brightness changes
    "falling \\": (row - column) / np.sqrt(2),
    "rising /": (row + column) / np.sqrt(2),
    "upright |": column,
    "level —": row,
}
assert list(across) == names
period, phases = 4, np.arange(8) / 8
stripes = np.stack(
    [
        127.5 + 127.5 * np.cos(2 * np.pi * (axis / period + phase))
        for axis in across.values()
        for phase in phases
    ]
)
stripes = np.repeat(stripes[..., None], 3, -1).astype("float32")  # (32, 32, 32, 3)
first_maps = keras.Model(model.inputs, model.get_layer("conv1").output)
answers = first_maps.predict(stripes, verbose=0)[:, 2:-2, 2:-2]  # without the border
answers = answers.mean((1, 2)).reshape(4, len(phases), 32).mean(1)  # (4, 32)
favourite = answers.argmax(0)
others = (answers.sum(0) - answers.max(0)) / 3
selectivity = answers.max(0) / others  # 1 for a filter that does not care
chosen = []
for k, name in enumerate(names):
    own = np.flatnonzero(favourite == k)
    chosen.append(int(own[selectivity[own].argmax()]))
    print(
        f"{name}: {len(own)} filters like it best; filter {chosen[-1]} answers "
        f"{selectivity[chosen[-1]]:.1f} times as much as to the other directions"
    )
assert np.bincount(favourite).tolist() == [10, 10, 4, 8]
assert chosen == [16, 22, 7, 19]
assert all(selectivity[k] > 6 for k in chosen)
assert all(brightness[k] > 0.4 for k in chosen)

# %% [markdown]
# They do. Filter 16 answers falling stripes nine times as strongly as the mean of the
# other directions, filter 22 rising ones more than seven times. Nobody told the network
# that diagonals exist: the gradient made these filters, since they help to tell a cat
# from a ship. On our house, drawn in pixels of twice the size, they do nearly what our
# four filters did.

# %%
assert selectivity[16] > 9 and selectivity[22] > 7
large = np.pad(np.kron(house, np.ones((2, 2))), 3)
assert large.shape == (32, 32)
photo = np.repeat(255 * (1 - large)[..., None], 3, -1)  # now black is 0, white is 255
maps = explain.activation_maps(model, photo, "conv1").maps

# %% tags=["hide-input"]
figure = Figure(figsize=(13, 5.4), layout="constrained")
grid = figure.subplots(2, 5)
grid[0, 0].set_axis_off()
grid[1, 0].imshow(photo / 255)
grid[1, 0].set_title("house")
grid[1, 0].set_ylabel("row (pixels)")
for i, (k, name) in enumerate(zip(chosen, names, strict=True)):
    top, bottom = grid[0, i + 1], grid[1, i + 1]
    limit = np.abs(weights[..., k]).max()
    top.imshow(0.5 + weights[..., k] / (2 * limit))
    top.set_title(f"filter {k}: {name}")
    shown = bottom.imshow(maps[..., k], cmap="viridis", vmin=0, vmax=maps.max())
    bottom.set_title("its map, after ReLU")
    bottom.set_xlabel("column (pixels)")
for axes in grid.ravel():
    axes.set_xticks([])
    axes.set_yticks([])
figure.colorbar(shown, ax=list(grid[1]), label="activation")
figure.suptitle("Four filters that the lecture's CNN learned on photographs")
figure.savefig(FIGURES / "04_learned_directions.png", dpi=120)

# %% [markdown]
# `04_learned_directions.png` shows the four filters as pictures of 5x5 coloured
# squares, each with a dark or bright stripe in its direction, and below each its map of
# the house: in the second the rising side of the roof is the brightest, in the third
# the walls, in the fourth the floor. In the first the falling side is a bright line;
# but on the other side, a staircase of pixels, each step has one place that is brighter
# still: the learned filters are less strict than ours. (The bright frame at some
# borders is the padding, which is the next tutorial's matter.)

# %%
inner = maps[2:-2, 2:-2]
brightest = {
    name: [int(i) + 2 for i in np.unravel_index(inner[..., k].argmax(), (28, 28))]
    for name, k in zip(names, chosen, strict=True)
}
print(brightest)
_, rise, wall, floor = brightest.values()
# Filter 16: a line on the falling side, and on the other a brighter place at each step.
line = maps[7:15, 17:25, chosen[0]].diagonal()
steps = maps[[7, 9, 11, 13], [13, 11, 9, 7], chosen[0]]
assert line.min() > 4.5 and steps.min() > line.max()
assert 5 <= rise[0] <= 17 and rise[1] < 17
assert wall[0] >= 15 and (wall[1] < 9 or wall[1] > 23)
assert floor[0] >= 24

# %% [markdown]
# Last, all 32 maps of one of the package's own shapes, a star.

# %%
x, y = generate(40, seed=1)
star = x[list(y).index(LABELS.index("star"))]
all_maps = explain.activation_maps(model, star, "conv1")
print(all_maps)
assert all_maps.maps.shape == (32, 32, 32)
assert all_maps.maps.min() == 0  # ReLU
all_maps.plot(FIGURES / "04_learned_maps.png")

# %% [markdown]
# `04_learned_maps.png` shows the star and its 32 maps, the strongest first: some show
# the ground or the star as areas, others only those of its edges that go their way.
#
# ## Summary
#
# - A filter responds where the image looks like it: positive weights say what is
#   wanted, negative ones what is not, and ReLU silences the rest.
# - One filter makes one map, and the map keeps the arrangement of the picture.
# - Filters are parameters. The gradient of a filter is the image convolved with the
#   errors of its map; by hand, by differences and by autodiff it is the same.
# - Gradient descent found the diagonal filter from its answers alone, and the lecture's
#   network found filters for all four directions from nothing but photographs' classes.
#
# ## Exercises
#
# 1. Write a filter of 3x3 that responds to a single black dot, but to no stroke.
# 2. What does the diagonal filter answer to a white falling stroke on black? Which
#    filter responds to that, and how strongly?
# 3. An image of 32x32 and a map of 28x28: how large is the filter whose gradient is the
#    convolution of the two?
# 4. Train as above, but on 16 pictures in which 40 % of the pixels are black (1) and
#    the others white (0), from ten random starts, with a rate of 0.5, for 800 steps.
#    How many of the ten find the filter, and what has become of the others?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. One 1 in the middle, -1 around it: 1 for the dot, 1 - 2 for any of the strokes.
dot_filter = -np.ones((3, 3))
dot_filter[1, 1] = 1
dot = np.zeros((3, 3))
dot[1, 1] = 1
assert explain.slide(dot, dot_filter).output.item() == 1
for stroke in (falling, rising, upright, level):
    assert explain.slide(stroke, dot_filter, relu=False).output.item() == -1

# 2. The sum is -3 (the weights) less 3 (the stroke): -6, so 0 after ReLU. The negative
#    of the filter answers 6. Two filters are needed for a stroke that may be either.
white_on_black = 1 - falling
assert explain.slide(white_on_black, diagonal, relu=False).output.item() == -6
assert explain.slide(white_on_black, diagonal).output.item() == 0
assert explain.slide(white_on_black, -diagonal).output.item() == 6

# 3. (32 - 28)/1 + 1 = 5: that is CONV1 without padding.
assert arithmetic.output_size(32, 28) == 5

# 4. Eight of ten. The other two are as good as dead: there are no negative pixels and
#    most answers should be 0, so the steps push the weights down, until fewer than one
#    window in a hundred has a sum above 0, and that sum still shrinks with each step.
#    The map is next to 0 everywhere, the loss is the mean of the squared targets, and
#    the gradient fades with the sums. Once every sum is 0 or less, it is 0 for ever: a
#    dead ReLU (죽은 ReLU).
rng = np.random.default_rng(0)
windows = windows_of((rng.random((16, 13, 13)) < 0.4).astype(float))
targets = np.maximum(windows @ diagonal.ravel(), 0)
dead = 0
for seed in range(10):
    begin = np.random.default_rng(seed).normal(0, 0.3, 9)
    path, losses = descend(windows, targets, begin, rate=0.5, steps=800)
    if losses[-1] > 0.1:
        dead += 1
        assert np.isclose(losses[-1], (targets**2).mean(), rtol=1e-3)
        assert 0 < (windows @ path[-1].ravel() > 0).mean() < 0.01
    else:
        assert losses[-1] < 0.01
print(f"{dead} of 10 filters are as good as dead")
assert dead == 2
print("All numbers of this tutorial hold.")
