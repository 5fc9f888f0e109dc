# %% [markdown]
# # 08 Training: the MLP against the CNN
#
# **What you will learn.** What training (훈련), validation (검증) and test (시험)
# images are for; how the curves (곡선) of two networks tell learning from memorising;
# which classes a network confuses, and where it is sure and wrong; and how far an
# accuracy (정확도) on so many images can be trusted.
#
# **Time.** Two to three minutes on two cores, most of it training. Where CIFAR-10 is on
# this machine (`kerascnn data` tells), a part of it is used, else the built-in shapes;
# the output says which. Accuracies depend on the data, the seed and, in the last digit,
# on the machine, so the text states what holds for both data sets, and the numbers are
# printed.

# %%
import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import kerascnn
from kerascnn import explain
from kerascnn.data import available
from kerascnn.environment import hardware
from kerascnn.plotting.curves import plot_comparison
from kerascnn.statistics import wilson
from kerascnn.training.evaluate import predict_probabilities

SMOKE = bool(os.environ.get("KERASCNN_SMOKE"))
SEED = 0
FIGURES = Path("tutorials/output")
FIGURES.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"

# %% [markdown]
# ## The three parts of the data
#
# The weights are fitted to the training images. Every decision about the training, how
# long, at what rate, which network, is made by looking at the validation images. The
# test images answer one question, once, at the end: how good is it on images that
# nothing was fitted to, and nothing was decided by?

# %%
CIFAR = not SMOKE and any(s.name == "cifar10" and s.there for s in available())
if CIFAR:
    everything = kerascnn.load_data("cifar10")
    data = dataclasses.replace(
        everything,
        title=f"a fifth of {everything.title}",
        train=everything.train.take(slice(0, 9_000)),
        validation=everything.validation.take(slice(0, 1_000)),
        origin={},
    )
else:
    data = kerascnn.load_data("shapes", images=200 if SMOKE else 10_000)
print(data)
sizes = len(data.train), len(data.validation), len(data.test)
assert data.classes == 10 and data.input_shape == (32, 32, 3)
assert SMOKE or sizes[:2] == (9_000, 1_000)

# %% [markdown]
# ## The two networks
#
# The CNN is the lecture's, with 33,120 parameters (매개변수). Its opponent is the
# fully-connected network with two hidden layers (은닉층) of 512 units. The lecture's
# MLP with its 34,083,840 would take most of the time of this tutorial; this one has
# 1,840,128, which is 56 times as many as the CNN has.

# %%
NETWORKS = {"lecture_cnn": {}, "dense_mlp": {"hidden": (512, 512)}}
assert 3_072 * 512 + 512 * 512 + 512 * 10 == 1_840_128
assert round(1_840_128 / 33_120) == 56
assert kerascnn.dense_mlp(**NETWORKS["dense_mlp"]).count_params() == 1_840_128
assert kerascnn.card("dense_mlp").trainable == 34_083_840

# %% [markdown]
# ## The same recipe for both
#
# Same images, same number of epochs (에폭), same optimizer, same seed; no augmentation,
# so that we can see what each network does with these images and no others. The
# learning rate (학습률) falls from its peak to 0 along half a cosine.

# %%
RECIPE = {
    "epochs": 1 if SMOKE else 8,
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": 0.002,
    "schedule": "cosine",
}
runs, models = {}, {}
with tempfile.TemporaryDirectory() as folder:
    for name, options in NETWORKS.items():
        run = kerascnn.train(
            name, data, RECIPE, seed=SEED, runs=folder, options=options, progress=False
        )
        runs[name] = run
        models[name] = run.model  # read before the folder is removed
        print(run)
print(f"on {hardware()}")
cnn, mlp = runs["lecture_cnn"], runs["dense_mlp"]
assert cnn.config["model"]["parameters"] == 33_120
assert mlp.config["model"]["parameters"] == 1_840_128

# %% [markdown]
# The CNN wins, with a fiftieth of the parameters: by more than 5 points on the test
# images, which is more than an interval leaves to chance, as we shall see. That is the
# lecture's claim, measured.

# %%
lead = cnn.metrics["test_accuracy"] - mlp.metrics["test_accuracy"]
print(f"the CNN leads by {lead:.1f} points on {len(data.test):,} test images")
assert SMOKE or lead > 5

# %% [markdown]
# ## The curves
#
# After each epoch the network was asked about the validation images. Two things are to
# be read off the curves. Does the training curve still move? Then there is more to
# learn. How far is validation from training? That gap (격차) is what was learned of the
# training images alone: overfitting (과적합).

# %% tags=["hide-input"]
figure = plot_comparison(
    {"CNN": cnn, "MLP": mlp}, title=f"Same images, same recipe: {data.title}"
)
figure.savefig(FIGURES / "08_curves.png", dpi=150)
print("epoch   CNN: training  validation   MLP: training  validation")
for a, b in zip(cnn.history, mlp.history, strict=True):
    print(
        f"{a['epoch']:>5}{a['accuracy']:>16.1%}{a['val_accuracy']:>12.1%}"
        f"{b['accuracy']:>16.1%}{b['val_accuracy']:>12.1%}"
    )
gaps = {
    name: run.history[-1]["accuracy"] - run.history[-1]["val_accuracy"]
    for name, run in runs.items()
}
print({name: f"gap {gap:.1%}" for name, gap in gaps.items()})

# %% [markdown]
# *The picture `08_curves.png` has two panels, loss (손실) and accuracy against the
# epoch, training dashed and validation solid. The two curves of the CNN part
# somewhat. Those of the MLP part more: its training accuracy climbs on while its
# validation accuracy stays behind.*
#
# The MLP has enough weights to note down images one by one, and does so: its gap is the
# larger by at least 2 points (by far more on photographs). The CNN has fewer means to:
# a filter is used at every place, so what it learns at one place must serve at all
# others.

# %%
assert SMOKE or gaps["dense_mlp"] > gaps["lecture_cnn"] + (0.1 if CIFAR else 0.02)

# %% [markdown]
# ## What is confused with what
#
# One number hides much. The confusion matrix (혼동 행렬) has a row for each true class
# and a column for each answer; the right answers are on its diagonal. Where CIFAR-10 is
# here, we look at the CNN whose weights come with the package: it was trained on 45,000
# training images for 60 epochs, and gets 81.70 % of the 10,000 test images right.

# %%
if CIFAR:
    shown, seen = kerascnn.load("lecture_cnn"), everything
else:
    shown, seen = models["lecture_cnn"], data
confusion = explain.confusion(shown, seen)
print(confusion)
confusion.plot(FIGURES / "08_confusion.png")
assert confusion.matrix.sum() == len(data.test)
assert np.isclose(
    100 * confusion.matrix.trace() / len(data.test), confusion.evaluation.accuracy
)
if CIFAR and data.fingerprint == kerascnn.card("lecture_cnn").weights["fingerprint"]:
    assert abs(confusion.evaluation.accuracy - 81.70) < 0.3
    pairs = {frozenset(pair[:2]) for pair in confusion.pairs[:2]}
    assert pairs == {frozenset(("cat", "dog"))}

# %% [markdown]
# *The picture `08_confusion.png` is the matrix in colours, with its counts: bright on
# the diagonal, dark elsewhere, and a few spots off the diagonal.*
#
# On the photographs the two worst spots are cat for dog and dog for cat. The network
# errs as a person would who had never seen more than 32x32 pixels: it confuses what
# looks alike. If errors are spread evenly over all classes, one does well to
# suspect the labels or the code.
#
# ## Sure, and wrong
#
# The most instructive images are those on which the network is sure and wrong. Look at
# them before you try anything else: wrong labels, cut-off objects and shortcuts that
# the network has taken are all found this way.

# %%
mistakes = explain.mistakes(shown, seen, 12)
print(mistakes)
mistakes.plot(FIGURES / "08_mistakes.png")
sure = mistakes.probabilities.max(axis=1)
assert (mistakes.truth != mistakes.answers).all()
assert (np.diff(sure) <= 0).all()
assert SMOKE or sure[0] > 0.9
if CIFAR and data.fingerprint == kerascnn.card("lecture_cnn").weights["fingerprint"]:
    bird = everything.test.take(slice(9_960, 9_961))
    said = predict_probabilities(shown, bird.x)[0]
    assert everything.labels[bird.y[0]] == "bird"
    assert everything.labels[said.argmax()] == "airplane" and said.max() > 0.99
    pairs = list(zip(mistakes.truth, mistakes.answers, strict=True))
    labels = everything.labels
    assert pairs.count((labels.index("airplane"), labels.index("ship"))) == 2

# %% [markdown]
# *The picture `08_mistakes.png` shows the twelve surest wrong answers, above each image
# the true class, below it the answer with its probability.*
#
# The surest wrong answer has a probability of more than 90 %. A softmax output is not a
# promise.
#
# Take one of them, where CIFAR-10 is here: test image 9,960, a bird of prey with its
# wings spread before a blue sky. The network says airplane, with more than 99 %. It is
# not silly: of the airplanes that it has seen many were dark shapes with wings before a
# blue sky, and of the birds few. The two airplanes among the twelve are taken for ships
# for a like reason: one lies on the water. What lies *around* a thing speaks as loudly
# as the thing, as all of it goes into the same sums. `kerascnn explain MODEL IMAGE
# --what occlusion` asks which part of an image an answer hangs on.
#
# ## What the test images are for
#
# Why three parts, and not two? Because a choice is a fit. Suppose somebody tries 100
# settings, and suppose none of them does anything: every network guesses, each answer
# right with a probability of 1/10. He keeps the one with the best accuracy on 200
# validation images.

# %%
rng = np.random.default_rng(SEED)
validation = rng.binomial(200, 0.1, size=100) / 200
test = rng.binomial(10_000, 0.1, size=100) / 10_000
best = int(validation.argmax())
print(f"the best of 100 guessers: validation {validation[best]:.1%}, ", end="")
print(f"test {test[best]:.2%}")
assert validation[best] > 0.14
assert 0.09 < test[best] < 0.11

# %% [markdown]
# The best of the hundred has more than 14 % on validation, which looks like a
# discovery; on the test images it has about 10 %. The validation accuracy of what was
# chosen by it is too high, always, and the more so the more was tried and the fewer
# images there were. The test accuracy is not, as long as nothing was chosen by it. Had
# he chosen by the test images, there would be no number left to believe. This is why
# `kerascnn.train` reads the test images once, after the last epoch, and `kerascnn tune`
# not at all.

# %% tags=["hide-input"]
figure = Figure(figsize=(6, 4.2), layout="constrained")
axes = figure.subplots()
axes.scatter(100 * validation, 100 * test, s=18, color=BLUE, label="a guesser")
axes.scatter(
    100 * validation[best],
    100 * test[best],
    s=70,
    color=VERMILION,
    marker="D",
    label="the one that is chosen",
)
axes.axhline(10, color="#333333", linestyle=":", label="what each is worth: 10 %")
axes.set_ylim(0, 20)
axes.set_xlabel("accuracy on 200 validation images (%)")
axes.set_ylabel("accuracy on 10,000 test images (%)")
axes.set_title("A hundred networks that guess")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(FIGURES / "08_guessers.png", dpi=150)

# %% [markdown]
# *The picture `08_guessers.png` has a dot for each guesser: they spread widely along
# the axis of the validation accuracy, and hardly along that of the test accuracy. The
# rightmost, the chosen one, is hardly higher than the others.*
#
# ## The interval of an accuracy
#
# Another 10,000 test images would have given another accuracy. By how much? If the
# network gets a share p of all conceivable images right, its share on n of them varies
# with a standard deviation of √(p·(1 - p)/n), and 95 % of the time it lies within 1.96
# of these. Turned round, that is the confidence interval (신뢰 구간) beside each
# accuracy of this package (Wilson's form of it, which also holds close to 0 and 100 %).

# %%
print("interval of an accuracy of 75 %:")
widths = {}
for n in (400, 2_000, 10_000):
    low, high = wilson(0.75, n)
    widths[n] = 100 * (high - low)
    print(f"  on {n:>6,} images: {low:.1%} to {high:.1%}")
assert [round(w / 2, 1) for w in widths.values()] == [4.2, 1.9, 0.8]

# %% [markdown]
# So 75 % is 75 ± 4.2 on 400 images, ± 1.9 on 2,000 and ± 0.8 on 10,000: for half the
# interval one needs four times the images.
#
# Does the interval keep its promise? Take the CNN's accuracy on all test images for the
# truth, draw 400 of these images at random, with replacement, work out the interval,
# and see whether it holds the truth; 2,000 times.

# %%
answers = {
    name: predict_probabilities(model, data.test.x).argmax(axis=1)
    for name, model in models.items()
}
right = {name: said == data.test.y for name, said in answers.items()}
truth = right["lecture_cnn"].mean()
assert np.isclose(100 * truth, cnn.metrics["test_accuracy"], atol=0.1)
held = 0
for _ in range(2_000):
    share = rng.choice(right["lecture_cnn"], 400).mean()
    low, high = wilson(share, 400)
    held += low <= truth <= high
print(f"{held / 2_000:.1%} of the intervals hold the truth")
assert SMOKE or 0.93 < held / 2_000 < 0.97

# %% [markdown]
# About 95 %, as promised. The promise is limited, though: the interval knows of the
# draw of the test images, not of another seed, whose network would have been another
# one.
#
# Two networks on the same images can be compared more sharply than by their intervals.
# Images that both get right, or both wrong, say nothing; what counts are those on which
# one is right and the other is not. If the networks were equally good, it would be
# heads or tails on each of these, and the difference of the two counts would rarely
# exceed twice the square root of their sum (McNemar's test).

# %%
only_cnn = int((right["lecture_cnn"] & ~right["dense_mlp"]).sum())
only_mlp = int((right["dense_mlp"] & ~right["lecture_cnn"]).sum())
z = (only_cnn - only_mlp) / np.sqrt(max(only_cnn + only_mlp, 1))
print(f"only the CNN is right: {only_cnn:,}; only the MLP: {only_mlp:,}; ", end="")
print(f"{z:.1f} square roots apart")
assert SMOKE or z > 5

# %% [markdown]
# More than 5 square roots: no luck of the draw. Note that the MLP is right on some
# images on which the CNN is wrong. A better network is not better on every image.
#
# ## Summary
#
# - Training images fit the weights, validation images the decisions; test images are
#   read once.
# - The gap between training and validation is what was memorised. The MLP, with 56
#   times as many parameters, has the larger one.
# - The confusion matrix and the surest mistakes show what an accuracy hides.
# - An accuracy has an interval: ± 0.8 points for 75 % of 10,000 images.
#
# ## Exercises
#
# 1. After which epoch would you have stopped the MLP, judging by its validation loss?
#    Which accuracy is it legitimate to report then?
# 2. How many test images does it take to know an accuracy of 93.5 % to ± 0.1 points?
# 3. A broken network gives the same answer for every image. What is its accuracy, and
#    what does its confusion matrix look like?
#
# Try them before you read on.

# %% [markdown]
# ## Solutions

# %%
# 1. After the epoch with the least validation loss. The validation accuracy of that
#    epoch was used to choose it, so it is too high; report the test accuracy of the
#    network as it was then (`keep="best"` in the recipe keeps it).
best_row = min(mlp.history, key=lambda row: row["val_loss"])
print(f"least validation loss of the MLP: epoch {best_row['epoch']}")
assert all(best_row["val_loss"] <= row["val_loss"] for row in mlp.history)

# 2. 1.96·√(0.935·0.065/n) = 0.001 gives n = 1.96²·0.935·0.065/0.001², some 233,000: 23
#    times what CIFAR-10 has.
n = 1.96**2 * 0.935 * 0.065 / 0.001**2
assert round(n, -3) == 233_000 and round(n / 10_000) == 23
low, high = wilson(0.935, round(n))
assert round(100 * (high - low) / 2, 2) == 0.10

# 3. The share of that class: a tenth, where the classes are equally frequent. One
#    column of the matrix is full, all others are empty; so a diagonal of a single
#    number.
same = np.zeros((10, 10), int)
np.add.at(same, (data.test.y, np.full(len(data.test), 3)), 1)
assert same.trace() == same[3, 3] == (data.test.y == 3).sum() == len(data.test) // 10
assert same[:, 3].sum() == len(data.test) == same.sum()
print("All numbers of this tutorial hold.")
