# %% [markdown]
# # 00 Review: what one line cannot do, and what one layer could
#
# **What you will learn.** Why a perceptron (퍼셉트론) cannot learn XOR, and why one
# hidden layer (은닉층) can represent it; how backpropagation (역전파) works out the
# gradient; and that a network which knows its examples by heart may be wrong on all
# others. An appendix proves the universal approximation theorem in one dimension, and
# shows what it does not promise: a small layer, and one that training finds.
#
# Who knows all that begins with [01](01_pixels.py).
#
# **Time.** Half a minute. All of it is NumPy, until Keras repeats it at the end.
#
# Every number below is computed, and every number in the prose is asserted: if this
# script runs to its end, its text is true.

# %%
import itertools
import os
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, VERMILION, INK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#333"


def keep(figure, name, text):
    """Write a figure with its description, and print where it is."""
    path = FIGURES / name
    figure.savefig(path, dpi=150, metadata={"Description": text})
    print(f"{path}: {text}")


# %% [markdown]
# ## A perceptron is a line
#
# A perceptron has a weight (가중치) for each input and a bias (편향). It answers 1
# where w1·x1 + w2·x2 + b > 0, and 0 elsewhere: a straight line separates its two
# answers, which is why it is called a linear classifier (선형 분류기). It learns by
# Rosenblatt's rule: show it the examples in turn; where it answers 0 instead of 1, add
# the input to the weights and 1 to the bias; where it answers 1 instead of 0, subtract
# them.
#
# The rule is all integers here, so we can follow it exactly: it stops after an epoch
# (에포크) without a mistake, and it can never stop once it comes back to weights that
# it had before.

# %%
INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
GATES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "XOR": (0, 1, 1, 0)}


def perceptron(inputs, targets):
    """Train until an epoch has no mistake, or the weights come back.

    Returns the epochs it took, the mistakes of each, the weights, and whether all
    targets were learned.
    """
    weights, bias = np.zeros(inputs.shape[1], int), 0
    seen, mistakes = set(), []
    for epoch in itertools.count(1):
        mistakes.append(0)
        for x, target in zip(inputs, targets, strict=True):
            step = target - int(weights @ x + bias > 0)
            weights, bias = weights + step * x, bias + step
            mistakes[-1] += abs(step)
        state = (*weights.tolist(), bias)
        if mistakes[-1] == 0 or state in seen:
            return epoch, mistakes, state, mistakes[-1] == 0
        seen.add(state)


for name, targets in GATES.items():
    epochs, mistakes, state, learned = perceptron(INPUTS, targets)
    end = "learned" if learned else "runs in a circle"
    print(f"{name}: mistakes by epoch {mistakes}, weights and bias {state}: {end}")
    if name == "AND":
        assert learned and epochs == 6 and state == (2, 1, -2)
    if name == "OR":
        assert learned and epochs == 4
    if name == "XOR":
        assert not learned and epochs == 3 and state == (-1, 0, 1)
        assert mistakes == [2, 3, 4]

# %% [markdown]
# AND takes 6 epochs, OR takes 4. XOR fails: after the third epoch the weights are those
# after the second, (-1, 0) with the bias 1, so every further epoch repeats the third,
# in which each of the 4 answers was wrong.
#
# More training cannot help, because no such line exists. XOR asks for four things:
#
# | input | wanted | therefore |
# |---|---|---|
# | (0, 0) | 0 | b ≤ 0 |
# | (0, 1) | 1 | w2 + b > 0 |
# | (1, 0) | 1 | w1 + b > 0 |
# | (1, 1) | 0 | w1 + w2 + b ≤ 0 |
#
# The sum of the two middle lines says w1 + w2 + 2b > 0. The sum of the first and the
# last says w1 + w2 + 2b ≤ 0. Both cannot hold, whatever the weights are. Three of the
# four answers are the most that a line gets right; a search through 9,261 lines finds
# no better one, as it must:

# %%
grid = np.linspace(-2, 2, 21)
lines = np.array(list(itertools.product(grid, grid, grid)))  # w1, w2, b
answers = lines[:, :2] @ INPUTS.T + lines[:, 2:] > 1e-9
right = {k: int((answers == np.array(t)).sum(1).max()) for k, t in GATES.items()}
print(f"most answers right, of 4, among {len(lines):,} lines: {right}")
assert len(lines) == 9_261
assert right == {"AND": 4, "OR": 4, "XOR": 3}

# %% [markdown]
# ## One hidden layer is enough for XOR
#
# Put two units with ReLU (렐루), max(0, x), between the input and the answer: a
# multi-layer perceptron, MLP (다층 퍼셉트론). The first unit counts the ones; the
# second gives 1 only where there are two of them; the answer is the first minus twice
# the second:
#
#     h1 = max(0, x1 + x2)      h2 = max(0, x1 + x2 - 1)      y = h1 - 2·h2

# %%
W1, B1 = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([0.0, -1.0])
W2, B2 = np.array([[1.0], [-2.0]]), np.array([0.0])
hidden = np.maximum(INPUTS @ W1 + B1, 0)
output = (hidden @ W2 + B2)[:, 0]
for x, h, y in zip(INPUTS, hidden, output, strict=True):
    print(f"x = {tuple(x.tolist())}  h = {tuple(h.tolist())}  y = {y:g}")
assert output.tolist() == list(GATES["XOR"])

# %% [markdown]
# The hidden layer moves (0, 1) and (1, 0) to one place, (1, 0), and (1, 1) to (2, 1).
# In the new coordinates one line separates the classes. The ReLU does it, not the
# layer: without ReLU two layers are one matrix, (x·W1)·W2 = x·(W1·W2), which is a
# perceptron again.

# %%
assert hidden.tolist() == [[0, 0], [1, 0], [1, 0], [2, 1]]
without_relu = (INPUTS @ W1 + B1) @ W2 + B2
one_layer = INPUTS @ (W1 @ W2) + (B1 @ W2 + B2)
assert np.array_equal(without_relu, one_layer)
assert perceptron(hidden.astype(int), GATES["XOR"])[-1]  # learns it now

# %% tags=["hide-input"]
figure = Figure(figsize=(11, 4.6), layout="constrained")
panels = figure.subplots(1, 3)
shown = {
    "AND: one line is enough": (INPUTS, "AND", (1, 1, -1.5)),
    "XOR: every line leaves a mistake": (INPUTS, "XOR", (2, 2, -1)),
    "XOR in the hidden layer": (hidden, "XOR", (1, -2, -0.5)),
}
for axes, (title, (points, gate, (a, b, c))) in zip(panels, shown.items(), strict=True):
    wide = points.max() + 0.5
    across = np.linspace(-0.5, wide, 2)
    axes.plot(
        across, -(a * across + c) / b, color=INK, label="between the answers 0 and 1"
    )
    for value, colour, mark in ((0, ORANGE, "o"), (1, BLUE, "s")):
        chosen = points[np.array(GATES[gate]) == value]
        style = {"s": 110, "zorder": 3, "edgecolors": INK}
        axes.scatter(*chosen.T, color=colour, marker=mark, label=f"{value}", **style)
    axes.set(title=title, xlim=(-0.5, wide), ylim=(-0.5, 1.6), xlabel="x1", ylabel="x2")
    axes.set_aspect("equal")
panels[2].set(xlabel="h1", ylabel="h2")
handles, names = panels[0].get_legend_handles_labels()
figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
keep(
    figure,
    "00_review_xor.png",
    "Three panels. AND: a line has the only 1 on one side. XOR: the drawn line has one "
    "of the two zeros on the side of the ones. In the hidden layer's coordinates the "
    "two ones lie on one point, and a line has them on one side, both zeros on the "
    "other.",
)

# %% [markdown]
# ## Learning it: backpropagation
#
# We chose those weights by hand. To find weights for other tasks, take a loss (손실),
# here the mean square of the errors, and walk downhill. The gradient (기울기) follows
# from the chain rule, from the answer back to the input: that is backpropagation. For
# one hidden layer it is four lines. All arrays below have one more axis in front, so
# that many networks are trained at the same time.


# %%
def forward(net, x):
    """Answer (S, N, 1), sums before ReLU and hidden units (S, N, units) of S nets."""
    sums = x @ net["w1"] + net["b1"]
    hidden = np.maximum(sums, 0)
    return hidden @ net["w2"] + net["b2"], sums, hidden


def loss(net, x, y):
    """Mean square error of each net, (S,)."""
    return ((forward(net, x)[0] - y) ** 2).mean((1, 2))


def gradients(net, x, y):
    """Derivative of the loss by every parameter: backpropagation."""
    answer, sums, hidden = forward(net, x)
    back = 2 * (answer - y) / len(x)  # of the loss by the answer
    below = back @ net["w2"].swapaxes(1, 2) * (sums > 0)  # by the sums before ReLU
    return {
        "w1": x.T @ below,
        "b1": below.sum(1, keepdims=True),
        "w2": hidden.swapaxes(1, 2) @ back,
        "b2": back.sum(1, keepdims=True),
    }


def draw_net(x, units, nets, seed):
    """Draw random nets; each unit begins to bend at one of the inputs `x`."""
    rng = np.random.default_rng(seed)
    inputs = x.shape[1]
    w1 = rng.normal(0, np.sqrt(2 / inputs), (nets, inputs, units))
    bends = x[rng.integers(0, len(x), (nets, units))]  # (nets, units, inputs)
    return {
        "w1": w1,
        "b1": -np.einsum("siu,sui->su", w1, bends)[:, None],
        "w2": rng.normal(0, np.sqrt(2 / units), (nets, units, 1)),
        "b2": np.zeros((nets, 1, 1)),
    }


def descend(net, x, y, steps, rate):
    """Minimise the loss by Adam (Kingma and Ba, 2015), all examples in each step."""
    first = {k: np.zeros_like(v) for k, v in net.items()}
    second = {k: np.zeros_like(v) for k, v in net.items()}
    for step in range(1, steps + 1):
        for k, g in gradients(net, x, y).items():
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g * g
            size = np.sqrt(second[k] / (1 - 0.999**step)) + 1e-8
            net[k] = net[k] - rate * first[k] / (1 - 0.9**step) / size
    return net


# %% [markdown]
# Is the gradient right? The definition of a derivative is a second way to work it out:
# change one parameter by a little, and see by how much the loss changes. The two ways
# share nothing but `forward`, and agree to eight decimals, for each of the 13
# parameters:

# %%
X = INPUTS.astype(float)
Y = np.array(GATES["XOR"], float)[:, None]
# Not at the corners, where units have their bends, and a bend has no derivative.
between = np.random.default_rng(5).uniform(0, 1, (40, 2))
target = between[:, :1] * between[:, 1:]
small = draw_net(X, units=3, nets=1, seed=3)
by_hand = gradients(small, between, target)
largest, count = 0.0, 0
for key, values in small.items():
    for place in np.ndindex(values.shape):
        changed = []
        for little in (1e-6, -1e-6):
            moved = {k: v.copy() for k, v in small.items()}
            moved[key][place] += little
            changed.append(loss(moved, between, target)[0])
        by_difference = (changed[0] - changed[1]) / 2e-6
        largest = max(largest, abs(by_difference - by_hand[key][place]))
        count += 1
print(f"{count} parameters; largest difference of the two gradients {largest:.1e}")
assert count == 2 * 3 + 3 + 3 + 1 == 13
assert largest < 1e-8

# %% [markdown]
# Now let 200 networks with random weights learn XOR, once with 2 hidden units, which
# are enough as we saw, once with more. A network has learned it when all four answers
# are on their side of 1/2.

# %%
nets = 50 if SMOKE else 200
shares = {}
for units in (2, 4, 8, 16):
    trained = descend(draw_net(X, units, nets, seed=0), X, Y, 1_000, 0.02)
    answers = forward(trained, X)[0]
    shares[units] = float(((answers > 0.5) == (Y > 0.5)).all((1, 2)).mean())
    print(f"{units:2d} hidden units: {shares[units]:.0%} of {nets} networks learn XOR")
assert 0.05 < shares[2] < 0.5
assert shares[2] < shares[4] < shares[8] <= shares[16]
assert shares[16] > 0.95

# %% [markdown]
# This is the first lesson about "can represent": of the networks with 2 units, which
# can represent XOR, most never find it. They come to rest where no small step lowers
# the loss, mostly with a unit that is 0 on all four inputs. With 16 units, eight times
# as many as are needed, almost all succeed.

# %% [markdown]
# ## What the theorem promises, and what not
#
# One hidden layer with enough units comes as close as one likes to any continuous
# function: the universal approximation theorem (보편 근사 정리). The slide puts a
# sentence beside it (from Goodfellow, Bengio and Courville, *Deep Learning*, section
# 6.4.1): the layer "may be infeasibly large and may fail to learn and generalize
# correctly". The first two warnings are in the appendix at the end, with the proof in
# one dimension: read it when you like, the way to the CNN goes on without it. The third
# is the one that leads there.
#
# XOR of ten inputs is the parity (패리티): 1 where the number of ones is odd. There are
# 1,024 inputs. Show a network with 64 hidden units some of them, drawn at random, until
# it knows them by heart; then ask for all the others.

# %%
bits = np.array(list(itertools.product((0.0, 1.0), repeat=10)))
odd = bits.sum(1, keepdims=True) % 2
steps = 60 if SMOKE else 800
parity = {}
for examples in (256, 512, 768):
    order = np.random.default_rng(2).permutation(len(bits))
    seen, new = order[:examples], order[examples:]
    start = time.perf_counter()
    net = descend(
        draw_net(bits[seen], 64, 1, seed=2), bits[seen], odd[seen], steps, 0.01
    )
    right = []
    for part in (seen, new):
        answers = forward(net, bits[part])[0][0] > 0.5
        right.append(float((answers == (odd[part] > 0.5)).mean()))
    parity[examples] = right
    print(
        f"shown {examples} of 1,024: {right[0]:.1%} of these right, {right[1]:.1%} of "
        f"the others (seed 2, {steps} steps, {time.perf_counter() - start:.1f} s)"
    )
if not SMOKE:
    assert parity[256][0] == 1.0 and parity[256][1] < 0.55
    assert parity[256][1] < parity[512][1] < parity[768][1] < 0.9

# %% [markdown]
# With a quarter of the inputs it knows every one that it has seen, and on the others it
# does no better than a coin. With more of them it gets better; but even with three
# quarters of all inputs there are, it gets more than a tenth of the rest wrong, of a
# rule that is one line long.
#
# Nothing is wrong with the layer's size: 10 units are enough for the parity (exercise
# 3). But many functions agree with those examples, and nothing in the network prefers
# the parity to the others. A network learns from few examples when the functions that
# it tends to are like the one that is asked for. For images, that means: what is near
# belongs together, and a thing is the same thing elsewhere. The next chapters build a
# network that has this in it.

# %% [markdown]
# ## The same in Keras
#
# Keras works out gradients by itself: autodiff (자동 미분). One step of plain gradient
# descent with a learning rate of 1 subtracts exactly the gradient, so the difference of
# the weights before and after is the gradient, with any backend. It is the one that we
# worked out by hand.

# %%
import keras

from kerascnn.environment import hardware

print(f"all of this was measured on {hardware()}")
model = keras.Sequential(
    [
        keras.Input((2,)),
        keras.layers.Dense(3, activation="relu"),
        keras.layers.Dense(1),
    ]
)
assert model.count_params() == 13
before = [small["w1"][0], small["b1"][0, 0], small["w2"][0], small["b2"][0, 0]]
model.set_weights(before)
assert (
    np.abs(model.predict_on_batch(between) - forward(small, between)[0][0]).max() < 1e-5
)
model.compile(keras.optimizers.SGD(1.0), "mse")
model.train_on_batch(between, target)
for key, was, now in zip(by_hand, before, model.get_weights(), strict=True):
    mine = by_hand[key][0].reshape(was.shape)
    print(f"{key}: largest difference {np.abs(was - now - mine).max():.1e}")
    assert np.abs(was - now - mine).max() < 1e-5

# %% [markdown]
# ## Summary
#
# - A perceptron is a line. No line has XOR on its two sides, and training runs in a
#   circle.
# - One hidden layer with ReLU represents XOR with 2 units; without ReLU it would be a
#   perceptron again.
# - In the appendix: with n units the wave sin(2πx) is met up to π²/(2·n²): 7, 23 and
#   71 units for 0.1, 0.01 and 0.001.
# - Infeasibly large: 1,023 units in one layer for what 20 do in ten layers.
# - Failing to learn: 32 units can be the saw, and training does not find it.
# - Failing to generalise: a quarter of the parity by heart, and a coin's luck beyond.

# %% [markdown]
# ## Appendix: the universal approximation theorem
#
# One hidden layer with enough units comes as close as one likes to any continuous
# function on a closed and bounded region (Cybenko, 1989; Hornik, Stinchcombe and White,
# 1989; for ReLU and every other activation that is not a polynomial: Leshno and others,
# 1993). In one dimension the proof fits in three lines of code. A unit max(0, x - t)
# bends a curve at t. Choose n bends at equal distances, and let each turn the slope to
# where the function goes next: n units give n straight pieces through n + 1 points of
# the function.


# %%
def interpolate(function, units):
    """Hidden layer for straight pieces between points of a function on 0…1."""
    bends = np.arange(units) / units
    slopes = np.diff(function(np.arange(units + 1) / units)) * units
    turns = np.diff(slopes, prepend=0)
    return {
        "w1": np.ones((1, 1, units)),
        "b1": -bends[None, None],
        "w2": turns[None, :, None],
        "b2": np.full((1, 1, 1), function(np.zeros(1))[0]),
    }


def wave(x):
    return np.sin(2 * np.pi * x)


fine = np.linspace(0, 1, 5_001)


def error(units):
    """Largest distance of the net from the wave."""
    return np.abs(
        forward(interpolate(wave, units), fine[:, None])[0][0, :, 0] - wave(fine)
    ).max()


table = {units: error(units) for units in (4, 8, 16, 32, 64, 128, 256)}
for units, value in table.items():
    bound = np.pi**2 / 2 / units**2
    print(f"{units:4d} units: error {value:.6f}, at most {bound:.6f}")
    assert value <= bound + 1e-12

# %% [markdown]
# Between two points 1/n apart, a straight piece misses a function by at most
# |f''|/(8·n²). The wave sin(2πx) has |f''| ≤ 4π², so the error is at most π²/(2·n²):
# twice the units, a quarter of the error. For an error of 0.1 it takes 7 units, for
# 0.01 it takes 23, for 0.001 it takes 71: **a hundredth of the error costs ten times
# the units.**

# %%
for smaller, larger in itertools.pairwise((32, 64, 128, 256)):
    assert 3.9 < table[smaller] / table[larger] < 4.1
needed = {}
for wanted in (0.1, 0.01, 0.001):
    needed[wanted] = next(n for n in itertools.count(2) if error(n) <= wanted)
    print(f"error {wanted}: {needed[wanted]} units")
assert list(needed.values()) == [7, 23, 71]

# %% tags=["hide-input"]
figure = Figure(figsize=(11, 4), layout="constrained")
left, right_panel = figure.subplots(1, 2)
left.plot(fine, wave(fine), color=INK, lw=3, alpha=0.35, label="sin(2πx)")
for units, colour, style in ((4, VERMILION, "--"), (7, BLUE, "-."), (23, GREEN, "-")):
    answer = forward(interpolate(wave, units), fine[:, None])[0][0, :, 0]
    left.plot(fine, answer, color=colour, ls=style, label=f"{units} units")
left.set(title="One hidden layer of ReLU units, built by hand", xlabel="x", ylabel="y")
left.legend(frameon=False)
widths = np.array(list(table))
right_panel.loglog(widths, list(table.values()), "o", color=BLUE, label="largest error")
right_panel.loglog(widths, np.pi**2 / 2 / widths**2, color=INK, label="π²/(2·n²)")
right_panel.set(title="Twice the units, a quarter of the error")
right_panel.set(xlabel="hidden units n", ylabel="largest error")
right_panel.legend(frameon=False)
keep(
    figure,
    "00_review_approximation.png",
    "Left: one period of a sine and its approximations by 4, 7 and 23 straight pieces; "
    "that of 23 cannot be told from the sine by eye. Right: on logarithmic axes the "
    "largest error falls along a straight line, π²/(2·n²).",
)

# %% [markdown]
# ### "May be infeasibly large"
#
# The construction above puts its points on a grid. On a grid, the number of cells grows
# with the dimension (차원) as a power: 23 along each axis are 23² = 529 for two inputs,
# and more than 41 million million for ten. An image of the lecture has 3,072 inputs.
# Even if every number were only black or white, there would be 2^3072 images, a number
# with 925 digits: a layer that has a unit for each of them will not be built.

# %%
assert 23**2 == 529
assert 41e12 < 23**10 < 42e12
assert 32 * 32 * 3 == 3_072
assert len(str(2**3_072)) == 925

# %% [markdown]
# A cleverer construction may need far fewer. But there are functions for which none
# does, even with a single input. Fold the interval 0…1 with the tent
#
#     t(x) = 2·max(0, x) - 4·max(0, x - 1/2)
#
# which goes up to 1 and down again. Apply it k times: t(t(…t(x)…)) goes up and down
# 2^(k-1) times, in 2^k straight pieces. As k layers, one after the other, this takes 2
# units each: 2·k in all.
#
# One hidden layer with n units bends at no more than n places, so it has no more than
# (n + 1) pieces. For 2^k pieces it needs at least 2^k - 1 units. (The argument is
# Telgarsky's, "Benefits of depth in neural networks", COLT 2016.)


# %%
def tent(x):
    return 2 * np.maximum(0, x) - 4 * np.maximum(0, x - 0.5)


def fold(x, times):
    """Deep network of `times` layers with 2 units each."""
    for _ in range(times):
        x = tent(x)
    return x


def pieces(times):
    """Straight pieces of the folded tent, counted on a grid that hits every bend."""
    values = fold(np.arange(2 ** (times + 1) + 1) / 2 ** (times + 1), times)
    slopes = np.diff(values)
    return 1 + int((slopes[1:] != slopes[:-1]).sum())


print("layers  pieces  units, deep  units, one layer: at least")
for times in (1, 2, 5, 10):
    print(f"{times:6d}{pieces(times):8,d}{2 * times:13d}{2**times - 1:18,d}")
    assert pieces(times) == 2**times
assert 2**10 - 1 == 1_023 and 2 * 10 == 20
assert len(str(2**100 - 1)) == 31

# %% [markdown]
# Ten layers of 2 units, 20 in all, do what one hidden layer cannot do with fewer than
# 1,023. For a hundred layers it is 200 units against a number of 31 digits. The theorem
# is true for this function too: a layer that is large enough exists. It is no promise
# that one could have it. Depth (깊이) is worth more than width (너비) here, and the
# lecture's networks are deep.
#
# ### "May fail to learn"
#
# Take k = 5: 32 pieces, and a hidden layer of 32 units. We can build it, without an
# error. Training starts with its bends well placed, each on a point of the data, and
# still does not find it, with two learning rates (학습률) that are ten times apart; nor
# does it with 8 times as many units. The measure is the root of the mean square error;
# a constant 1/2 has 0.29, and no training here comes below 0.2.

# %%
x = np.linspace(0, 1, 257)[:, None]
y = fold(x, 5)
start = time.perf_counter()
built = interpolate(lambda v: fold(v, 5), 32)
assert np.abs(forward(built, x)[0][0] - y).max() < 1e-12
constant = float(np.sqrt(((y - 0.5) ** 2).mean()))
assert round(constant, 2) == 0.29
steps = 100 if SMOKE else 2_000
learned = {}
for units, nets, rate in ((32, 5, 0.1), (32, 5, 0.01), (256, 1, 0.01)):
    fitted = descend(draw_net(x, units, nets, seed=1), x, y, steps, rate)
    errors = np.sqrt(loss(fitted, x, y))
    best = {k: v[errors.argmin()][None] for k, v in fitted.items()}
    learned[units] = forward(best, x)[0][0, :, 0]
    print(
        f"{units} units, rate {rate}, best of {nets} (seed 1, {steps} steps): error "
        f"{errors.min():.3f}; built by hand with 32: 0; a constant: {constant:.3f}"
    )
    assert errors.min() > 0.2
print(f"{time.perf_counter() - start:.1f} s")

# %% tags=["hide-input"]
figure = Figure(figsize=(11, 3.6), layout="constrained")
axes = figure.subplots()
axes.plot(x, y, color=INK, alpha=0.35, lw=3, label="the function; also 32 units, built")
axes.plot(x, learned[32], color=BLUE, label="32 units, trained")
axes.plot(x, learned[256], color=VERMILION, ls="--", label="256 units, trained")
axes.set(title="Represented, but not learned", xlabel="x", ylabel="y")
figure.legend(loc="outside lower center", ncols=3, frameon=False)
keep(
    figure,
    "00_review_learning.png",
    "A saw of sixteen teeth from 0 to 1. The curve of the 32 trained units stays near "
    "1/2; that of 256 units follows the first two teeth and the last, and stays near "
    "1/2 between them.",
)

# %% [markdown]
# ## Exercises
#
# 1. Give the perceptron a third input, the product x1·x2. Does it learn XOR now?
# 2. (To the appendix.) How many ReLU units does |x - 1/2| on 0…1 take, exactly?
# 3. Build the parity of ten bits with one hidden layer of 10 units. (The number of ones
#    is one number.)
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. Yes. What is a line in three dimensions is a curve in two. The right feature makes
#    a linear classifier enough, and a deep network's layers are there to find features.
with_product = np.hstack([INPUTS, INPUTS[:, :1] * INPUTS[:, 1:]])
assert perceptron(with_product, GATES["XOR"])[-1]

# 2. Two: one begins with the slope -1, one turns it by 2 at 1/2.
two = interpolate(lambda v: np.abs(v - 0.5), 2)
assert (
    np.abs(forward(two, fine[:, None])[0][0, :, 0] - np.abs(fine - 0.5)).max() < 1e-12
)
assert two["w2"].ravel().tolist() == [-1, 2]

# 3. Every unit sees the sum s of the bits. The first gives s, the others turn the slope
#    at 1, 2, …, 9, by -2 and +2 in turn: up, down, up, …
zigzag = {
    "w1": np.ones((1, 10, 10)),
    "b1": -np.arange(10.0)[None, None],
    "w2": np.array([1.0, *([-2.0, 2.0] * 5)[:9]])[None, :, None],
    "b2": np.zeros((1, 1, 1)),
}
assert np.array_equal(forward(zigzag, bits)[0][0], odd)
print("All numbers of this tutorial hold.")
