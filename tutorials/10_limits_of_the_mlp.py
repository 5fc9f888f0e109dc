# %% [markdown]
# # 10 The limits of the MLP: four of them, each made visible
#
# **What you will learn.** The lecture ends with four limitations of the multilayer
# perceptron (다층 퍼셉트론): it needs many labelled data (레이블이 있는 데이터), its
# gradients vanish (기울기 소실), it overfits (과적합), and its training gets stuck in
# local minima (지역 최솟값) and at saddle points (안장점). Each gets one small
# experiment here.
#
# **Time.** About two minutes on two cores. The experiments are small on purpose: what
# happens in them can be seen as a whole.

# %%
import os
from pathlib import Path

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SEED = 0

# %% [markdown]
# ## The images
#
# Images of 12x12 pixels, each with one stroke of five pixels in one of four directions,
# anywhere, in noise. The classes are the directions: —, |, \\ and /. There are 8·12
# places for a level stroke and for an upright one, 8·8 for each diagonal: 320 strokes
# in all.

# %%
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def strokes(number, seed):
    """Draw strokes: images float32 (number, 12, 12, 1) and classes (number,)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.3, (number, 12, 12, 1)).astype("float32")
    y = rng.integers(0, 4, number)
    for image, k in zip(x, y, strict=True):
        down, right = DIRECTIONS[k]
        row = rng.integers(0, 12 - 4 * down)
        column = rng.integers(4 if right < 0 else 0, 12 - 4 * max(right, 0))
        for i in range(5):
            image[row + i * down, column + i * right] += 1
    return x, y


assert 8 * 12 + 8 * 12 + 8 * 8 + 8 * 8 == 320
test_x, test_y = strokes(400 if SMOKE else 4_000, seed=(SEED, 1))

# %% [markdown]
# ## 1. It needs many labelled data
#
# An MLP with 128 hidden units (은닉 유닛) and a small CNN: 16 filters of 5x5, the
# greatest answer of each filter in the whole image, and a dense layer. The MLP has
# 19,076 parameters, the CNN 484. Both get the same labelled images, first 50, then four
# times as many, and so on, and both take the same number of steps.


# %%
def mlp():
    hidden = [layers.Flatten(), layers.Dense(128, activation="relu")]
    return keras.Sequential([keras.Input((12, 12, 1)), *hidden, layers.Dense(4)])


def cnn():
    hidden = [layers.Conv2D(16, 5, activation="relu"), layers.GlobalMaxPooling2D()]
    return keras.Sequential([keras.Input((12, 12, 1)), *hidden, layers.Dense(4)])


def fit(model, x, y, steps, optimizer=None):
    """Train for so many steps of 32 images, the given ones again and again."""
    rng = np.random.default_rng(SEED)
    rounds = -(-steps * 32 // len(x))
    order = np.concatenate([rng.permutation(len(x)) for _ in range(rounds)])
    order = order[: steps * 32]
    optimizer = optimizer or keras.optimizers.Adam(0.003)
    model.compile(optimizer, LOSS, steps_per_execution=min(steps, 50))
    model.fit(x[order], y[order], batch_size=32, shuffle=False, verbose=0)
    return model


def accuracy(model, x, y):
    return 100 * (model.predict(x, batch_size=1000, verbose=0).argmax(1) == y).mean()


assert mlp().count_params() == 144 * 128 + 128 + 128 * 4 + 4 == 19_076
assert cnn().count_params() == 5 * 5 * 16 + 16 + 16 * 4 + 4 == 484

# %%
steps = 50 if SMOKE else 1_500
counts = (50,) if SMOKE else (50, 200, 800, 3_200, 12_800)
all_x, all_y = strokes(counts[-1], seed=(SEED, 2))
curves = {"MLP, 19,076 parameters": [], "CNN, 484 parameters": []}
for count in counts:
    for (name, curve), make in zip(curves.items(), (mlp, cnn), strict=True):
        keras.utils.set_random_seed(SEED)
        trained = fit(make(), all_x[:count], all_y[:count], steps)
        curve.append(accuracy(trained, test_x, test_y))
        print(f"{count:6,} labelled images, {name}: {curve[-1]:.1f} %")

few_mlp, few_cnn = curves.values()
if not SMOKE:
    assert few_mlp[1] < 40  # 200 images
    assert few_cnn[0] > 85  # 50 images
    assert few_cnn[0] > few_mlp[3]  # 3,200 images
    assert few_mlp[-1] > 85 and few_cnn[-1] > 95 and counts[3] == 64 * counts[0]

# %% tags=["hide-input"]
figure = Figure(figsize=(7.5, 4.5), layout="constrained")
axes = figure.subplots()
for (name, curve), colour, marker in zip(
    curves.items(), (VERMILION, BLUE), "so", strict=True
):
    axes.semilogx(counts, curve, color=colour, marker=marker, label=name)
axes.axhline(25, color="#333333", ls=":", label="guessing")
axes.set_xticks(counts, [f"{n:,}" for n in counts])
axes.minorticks_off()
axes.set(xlabel="labelled images (log scale)", ylabel="test accuracy (%)")
axes.set(ylim=(0, 102), title="Strokes in four directions: what a label is worth")
axes.legend(loc="lower right")
figure.savefig(FIGURES / "10_few_labels.png", dpi=120)

# %% [markdown]
# `10_few_labels.png`: the CNN's curve begins near the top and stays there; the MLP's
# begins near guessing, 25 %, and climbs only with thousands of images.
#
# With 50 labelled images the CNN is right in more than 85 % of the cases. The MLP with
# 200 is hardly better than guessing, and with 3,200, which is 64 times as many as the
# CNN had, it is still behind: to the MLP the same stroke one pixel further on is
# another pattern, on other inputs with other weights. It has to see each of the 320
# strokes, in several noises. A filter of the CNN sees all places of a direction as one.
#
# ## 2. Its gradients vanish
#
# Backpropagation (역전파) passes the error from layer to layer, from the last to the
# first. At each layer it is multiplied by the weights and by the slope of the
# activation function (활성화 함수). The slope of the sigmoid σ is σ·(1 - σ), which is
# 1/4 at most. So with weights of ordinary size an error shrinks to less than a quarter
# at each layer.
#
# Here are 20 hidden layers of 64 units. The weights are drawn with the variance 1/n, n
# the number of inputs, for the sigmoid and tanh (Glorot and Bengio, 2010), and 2/n for
# ReLU (He et al., 2015). Plain gradient descent subtracts the gradient times the
# learning rate from the weights; so after one step the gradient can be read off them,
# the smallest too if the rate is a billion.

# %%
peak = keras.activations.sigmoid(np.linspace(-8, 8, 10_001))
assert keras.ops.max(peak * (1 - peak)) == 0.25
x, y, depth = test_x[:64], test_y[:64], 20
lengths, factors = {}, {}
for name, variance in (("sigmoid", 1), ("tanh", 1), ("ReLU", 2)):
    keras.utils.set_random_seed(SEED)
    draw = keras.initializers.VarianceScaling(variance, "fan_in", "untruncated_normal")
    look = {"use_bias": False, "kernel_initializer": draw}
    deep = [layers.Dense(64, activation=name.lower(), **look) for _ in range(depth)]
    model = keras.Sequential([layers.Flatten(), *deep, layers.Dense(4, **look)])
    model.compile(keras.optimizers.SGD(1e9), LOSS)
    model.build(x.shape)
    before = model.get_weights()
    model.train_on_batch(x, y)
    # As a share of the weights' own length, so that layers can be compared.
    lengths[name] = [
        np.linalg.norm((old - new.astype(float)) / 1e9) / np.linalg.norm(old)
        for old, new in zip(before, model.get_weights(), strict=True)
    ]
    # From hidden layer 20 down to hidden layer 2, whose matrices are all 64x64.
    ratio = lengths[name][1] / lengths[name][depth - 1]
    factors[name] = ratio ** (1 / (depth - 2))
    print(
        f"{name}: {factors[name]:.2f} times with each layer further from the end, "
        f"{ratio:.0e} from hidden layer {depth} to 2"
    )
    assert name != "sigmoid" or 1e-12 < ratio < 1e-10
assert 0.2 < factors["sigmoid"] < 0.25
assert 0.85 < factors["tanh"] < 1.15 and 0.85 < factors["ReLU"] < 1.15

# %% tags=["hide-input"]
figure = Figure(figsize=(7.5, 4.5), layout="constrained")
axes = figure.subplots()
for (name, values), colour, marker in zip(
    lengths.items(), (VERMILION, ORANGE, BLUE), "s^o", strict=True
):
    axes.semilogy(range(1, depth + 2), values, color=colour, marker=marker, label=name)
axes.set(xlabel="layer (1 is next to the image)", xticks=range(1, depth + 2, 4))
axes.set_ylabel("gradient / weights (lengths, log scale)")
axes.set_title(f"The gradient in an MLP of {depth} hidden layers, before training")
axes.legend()
figure.savefig(FIGURES / "10_vanishing_gradients.png", dpi=120)

# %% [markdown]
# `10_vanishing_gradients.png` shows the length of the gradient in each of the 21
# layers: the lines of tanh and ReLU are level, that of the sigmoid falls straight from
# the last layer to the first. Each layer takes three quarters of the gradient and more;
# from hidden layer 20 to hidden layer 2 it becomes 100 billion times smaller, give or
# take a factor of ten. The layers next to the image, which have to find the features,
# learn nothing. With tanh and ReLU, and weights drawn to fit them, it keeps its length.
#
# What does that mean for training? Points in a square, inside a circle or outside, are
# an easy problem. Each network gets two learning rates, 0.1 and 0.01, and the one that
# did better on the training points counts. One hidden layer learns the circle with
# either activation. With eight, ReLU still does; the sigmoid does not move.

# %%
rng = np.random.default_rng((SEED, 3))
points = rng.uniform(-1, 1, (4_000, 2)).astype("float32")
inside = ((points**2).sum(1) < 2 / np.pi).astype(int)  # half of the square's area
assert abs(inside.mean() - 0.5) < 0.03
known, new = (points[:2_000], inside[:2_000]), (points[2_000:], inside[2_000:])
learned = {}
for activation, initializer in (("sigmoid", "glorot_normal"), ("relu", "he_normal")):
    look = {"activation": activation, "kernel_initializer": initializer}
    for hidden in (1,) if SMOKE else (1, 8):
        tries = []
        for rate in (0.1,) if SMOKE else (0.1, 0.01):
            keras.utils.set_random_seed(SEED)
            stack = [layers.Dense(32, **look) for _ in range(hidden)]
            network = keras.Sequential([keras.Input((2,)), *stack, layers.Dense(2)])
            optimizer = keras.optimizers.SGD(rate, momentum=0.9)
            fit(network, *known, 50 if SMOKE else 3_000, optimizer)
            tries.append((accuracy(network, *known), accuracy(network, *new)))
        learned[activation, hidden] = right = max(tries)[1]
        print(
            f"{activation}, hidden layers {hidden}: {right:.1f} % of 2,000 new points"
        )
if not SMOKE:
    assert learned["sigmoid", 1] > 90 and learned["relu", 1] > 90
    assert learned["relu", 8] > 90 and learned["sigmoid", 8] < 60

# %% [markdown]
# ## 3. It overfits
#
# The MLP of the first experiment again, with 1,200 labelled images, looked at after
# every epoch (에포크). And a second time with the same images but labels that were
# drawn at random, so that there is nothing to be learned (the experiment of Zhang et
# al., 2017).

# %%
few, epochs = (50, 3) if SMOKE else (1_200, 45)
random_y = np.random.default_rng((SEED, 4)).integers(0, 4, few)
histories = {}
for name, labels in (("true labels", all_y[:few]), ("random labels", random_y)):
    keras.utils.set_random_seed(SEED)
    network = mlp()
    network.compile(keras.optimizers.Adam(0.003), LOSS, metrics=["accuracy"])
    new = {"validation_data": (test_x[:1_000], test_y[:1_000])}
    seen = network.fit(all_x[:few], labels, 32, epochs, verbose=0, **new).history
    histories[name] = seen
    print(
        f"{name}: {100 * seen['accuracy'][-1]:.1f} % of the training images, "
        f"{100 * seen['val_accuracy'][-1]:.1f} % of new ones; loss on new ones "
        f"{min(seen['val_loss']):.2f} at best, {seen['val_loss'][-1]:.2f} in the end"
    )

true, drawn = histories.values()
if not SMOKE:
    assert true["accuracy"][-1] > 0.99 and true["val_accuracy"][-1] < 0.8
    assert true["val_accuracy"][-1] > 0.4
    assert drawn["accuracy"][-1] > 0.9 and drawn["val_accuracy"][-1] < 0.35
    assert true["val_loss"][-1] > 1.1 * min(true["val_loss"])
    assert drawn["val_loss"][-1] > 2 > np.log(4)

# %% tags=["hide-input"]
figure = Figure(figsize=(11, 4.5), layout="constrained")
panels = figure.subplots(1, 2, sharey=True)
for axes, (name, history) in zip(panels, histories.items(), strict=True):
    epoch = np.arange(1, epochs + 1)
    axes.plot(epoch, history["loss"], color=BLUE, ls="--", label="training images")
    axes.plot(epoch, history["val_loss"], color=VERMILION, label="new images")
    axes.axhline(np.log(4), color="#333333", ls=":", label="guessing: ln 4")
    axes.set(title=f"{few:,} images, {name}", xlabel="epoch", ylim=(0, 3.6))
    axes.legend()
panels[0].set_ylabel("cross-entropy loss")
figure.suptitle("Overfitting: the loss falls on what is known and rises on what is new")
figure.savefig(FIGURES / "10_overfitting.png", dpi=120)

# %% [markdown]
# `10_overfitting.png`: the dashed loss of the training images falls towards 0 with true
# labels (left) and random ones (right). That of the new images comes down on the left
# and rises again, by more than a tenth; on the right it ends above 2, where a guess has
# ln 4 = 1.39.
#
# With the true labels the network ends with more than 99 % of the training images right
# and fewer than 80 % of the new ones: it has learned something, and more by heart. With
# random labels it has more than 90 % of the training images right, all of them by
# heart, and fewer than 35 % of the new ones, where a guess has 25 %.
#
# ## 4. It gets stuck
#
# ### A saddle point
#
# The smallest network with a hidden layer has one hidden unit and no activation
# function: its output is v·w·x. Let it learn to return its input. With x = 1 the loss
# and its gradient are
#
#     L(w, v) = ½ (1 - v·w)²      ∂L/∂w = -(1 - v·w)·v      ∂L/∂v = -(1 - v·w)·w
#
# At w = v = 0 the gradient is zero, and yet the loss is ½ there, not the least. In the
# direction w = v it falls from there, in the direction w = -v it rises: a saddle. The
# second derivatives say so: one eigenvalue (고윳값) is negative, one positive.


# %%
def slope(w, v):
    error = 1 - v * w
    return -error * v, -error * w


assert slope(0.0, 0.0) == (0, 0)
ends = (np.subtract(slope(*d), slope(*-d)) / 2e-5 for d in 1e-5 * np.eye(2))
eigenvalues = np.linalg.eigvalsh(np.stack([*ends]))
print("eigenvalues of the second derivatives:", eigenvalues)
assert np.allclose(eigenvalues, [-1, 1])

# %% [markdown]
# Gradient descent that starts exactly on the ridge, w = -v, runs down to the saddle and
# stays there for ever. But what if it starts a hair's breadth beside it?


# %%
def descend(aside, rate=0.1, most=2_000):
    """Start beside the ridge; return the path and the steps until the loss is 0.01."""
    w, v = 1.0 + aside, -1.0
    path = [(w, v)]
    for step in range(most):
        if 0.5 * (1 - v * w) ** 2 < 0.01:
            return np.array(path), step
        dw, dv = slope(w, v)
        w, v = w - rate * dw, v - rate * dv
        path.append((w, v))
    return np.array(path), None


path, needed = descend(0.0)
assert needed is None and np.abs(path[-1]).max() < 1e-12  # on the saddle
waits = [descend(10.0**-power)[1] for power in (1, 3, 5, 7, 9)]
print("steps from 0.1, 0.001, … beside the ridge:", waits)
assert waits == sorted(waits)
w, v = descend(1e-3)[0].T
assert (abs(0.5 * (1 - v * w) ** 2 - 0.5) < 0.05)[25:60].all()  # the plateau
assert 0.5 * (1 - v[66] * w[66]) ** 2 < 0.4

# %% [markdown]
# It escapes, as a saddle is no trap: near it each step multiplies the distance from the
# ridge by 1 + the learning rate, here 1.1. So a start that is a hundred times closer
# takes ln 100 / ln 1.1 = 48 steps longer: a plateau (고원), on which the loss stands
# still at ½ and one may believe that training has ended.

# %%
assert round(np.log(100) / np.log(1.1)) == 48
assert all(abs(n - 48) <= 2 for n in np.diff(waits)[1:])

# %% tags=["hide-input"]
figure = Figure(figsize=(11.4, 4.6), layout="constrained")
left, right = figure.subplots(1, 2)
side = np.linspace(-2, 2, 201)
surface = 0.5 * (1 - np.outer(side, side)) ** 2  # the corners are as high as 12.5
levels = np.linspace(0, 3, 25)
drawn = left.contourf(side, side, surface, levels, extend="max", cmap="viridis")
figure.colorbar(drawn, ax=left, label="loss")
for aside, colour, style in ((0.1, ORANGE, "-"), (1e-3, "k", "-"), (0, "w", "--")):
    path = descend(aside)[0]
    label = f"{aside:g} beside the ridge"
    left.plot(*path.T, color=colour, ls=style, label=label)
    loss = 0.5 * (1 - path[:, 0] * path[:, 1]) ** 2
    colour = "#888888" if colour == "w" else colour
    right.plot(loss[:200], color=colour, ls=style, label=label)
left.plot(0, 0, "wX", markersize=9, label="saddle point")
left.set(xlabel="w (weight of the hidden unit)", ylabel="v (weight of the output)")
left.set_title("The loss, and three descents from the lower right")
left.legend(loc="upper left", facecolor="#BBBBBB")
right.set(xlabel="step", ylabel="loss")
right.set_title("Loss by step: the nearer, the longer the plateau")
right.legend()
figure.savefig(FIGURES / "10_saddle_point.png", dpi=120)

# %% [markdown]
# `10_saddle_point.png` shows the loss as a landscape on the left: the descent that
# starts on the ridge ends at the saddle, the one a little beside it goes almost there
# and turns off at a right angle, the one further aside cuts the corner. On the right is
# the loss by step: a plateau at ½, which the second leaves after some 60 steps and the
# first never.
#
# ### Stuck for good
#
# An MLP with sigmoid units that learns XOR can come to rest at a place that is no
# solution, depending on the weights that it begins with. We train it from many starts
# at once, by hand, with 2, 3, 4 and 8 hidden units, and count how often all four
# answers are right in the end.


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def solved(width, starts, steps, rate=2.0):
    """Return how many of so many random starts end with all four answers right."""
    rng = np.random.default_rng((SEED, width))
    w1, b1 = rng.normal(0, 1, (starts, 2, width)), np.zeros((starts, 1, width))
    w2, b2 = rng.normal(0, 1, (starts, width, 1)), np.zeros((starts, 1, 1))
    for _ in range(steps):
        hidden = sigmoid(xor_x @ w1 + b1)  # (starts, 4, width)
        answer = sigmoid(hidden @ w2 + b2)  # (starts, 4, 1)
        error = (answer - xor_y[:, None]) / 4  # of the cross-entropy
        back = error @ w2.swapaxes(1, 2) * hidden * (1 - hidden)
        w2 -= rate * hidden.swapaxes(1, 2) @ error
        b2 -= rate * error.sum(1, keepdims=True)
        w1 -= rate * xor_x.T @ back
        b1 -= rate * back.sum(1, keepdims=True)
    return int(((answer[..., 0] > 0.5) == xor_y).all(1).sum())


xor_x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
xor_y = np.array([0, 1, 1, 0], float)
# %%
starts, steps = (20, 100) if SMOKE else (200, 4_000)
solutions = {width: solved(width, starts, steps) for width in (2, 3, 4, 8)}
for width, number in solutions.items():
    print(f"{width} hidden units: {number} of {starts} starts end with XOR solved")
if not SMOKE:
    assert abs(200 - solutions[2] - 60) < 25 and solutions[2] < solutions[3]
    assert solutions[4] >= 195 and solutions[8] >= 195

# %% [markdown]
# With 2 hidden units, as many as XOR needs at least, about three in ten starts end in
# failure. With 4 or 8 hardly any does: more units than are needed give descent more
# ways down.
#
# Are the failures local minima? For this small network it has been shown that no place
# with finite weights is one (Hamey, "XOR Has No Local Minima", 1998): what looks like
# the bottom of a valley is a plateau that goes on and on. For the one who trains, it
# makes no difference. It is another reason, though, to think first of plateaus and
# saddles, and of a better start, where the loss stands still.
#
# ## Summary
#
# - Few labels: to an MLP every place is a new pattern. Sharing weights makes a label
#   worth many.
# - Vanishing gradients: the slope of the sigmoid is 1/4 at most, and 20 layers
#   multiply. ReLU, and weights drawn to fit, keep the gradient's length.
# - Overfitting: an MLP can learn any labels by heart, random ones too; training
#   accuracy says nothing.
# - Getting stuck: a saddle point delays by a time that grows with the logarithm of the
#   nearness; a small network can fail for good; a larger one mostly finds a way.
#
# The next tutorials show what was found against these: depth that trains, in VGG19 and
# its successors.
#
# ## Exercises
#
# 1. In half precision (float16) the smallest positive number is 2^-24. If every layer
#    of a sigmoid network passes on a quarter of the gradient, at the best, behind how
#    many layers has a gradient of 1 become exactly 0?
# 2. How much longer does a start take that is a hundred times nearer to the ridge, at a
#    learning rate of 0.2?
# 3. All weights and biases of the XOR network begin at 0. What is the gradient?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. Behind 13: (1/4)^12 is 2^-24, the smallest number, and (1/4)^13 is rounded to 0.
assert np.float16(0.25**12) == 2**-24
assert np.float16(0.25**13) == 0

# 2. ln 100 / ln 1.2 = 25 steps: half as many as at 0.1.
assert round(np.log(100) / np.log(1.2)) == 25
near, nearer = (descend(10.0**-power, rate=0.2)[1] for power in (5, 7))
assert abs(nearer - near - 25) <= 2

# 3. Zero, all of it. The hidden units say ½ to everything, the answer is ½, the errors
#    are +½, -½, -½, +½, and their sums vanish; and the weights behind the hidden units
#    are 0, so nothing gets back to them. A critical point that is no solution: weights
#    must begin at random.
hidden = np.full((4, 2), 0.5)
error = np.full(4, 0.5) - xor_y
assert error.tolist() == [0.5, -0.5, -0.5, 0.5]
assert (hidden.T @ error == 0).all() and error.sum() == 0  # w2 and b2
back = error[:, None] @ np.zeros((1, 2)) * hidden * (1 - hidden)
assert (back == 0).all()  # w1 and b1
print("All numbers of this tutorial hold.")
