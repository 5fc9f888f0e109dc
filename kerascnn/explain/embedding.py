"""Images as points: the last features of a network in two dimensions."""

import importlib.util
from dataclasses import dataclass

import numpy as np

from kerascnn.costs import weighted
from kerascnn.explain.mistakes import images_of
from kerascnn.explain.recording import batch, record
from kerascnn.heads import SAMPLE, head
from kerascnn.plotting import style
from kerascnn.plotting.style import CYCLE
from kerascnn.tables import Column, Table

METHODS = ("auto", "tsne", "pca")
_MARKERS = "os^Dv<>pP*X"
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Embedding:
    """Images as points in the plane."""

    title: str  #: the network and the data
    layer: str  #: whose output, or input, the features are
    method: str  #: "t-SNE" or "PCA"
    note: str  #: why that method, and what it keeps
    points: np.ndarray  #: float32 (N, 2)
    features: np.ndarray  #: float32 (N, features)
    classes: np.ndarray  #: int (N,)
    labels: tuple[str, ...]  #: names of the classes

    def neighbours(self, values: np.ndarray) -> np.ndarray:
        """Tell for each image whether that of the nearest values is of its class."""
        squares = (values.astype(np.float64) ** 2).sum(1)
        apart = squares[:, None] + squares[None] - 2.0 * (values @ values.T)
        np.fill_diagonal(apart, np.inf)
        return self.classes[apart.argmin(1)] == self.classes

    @property
    def table(self) -> Table:
        """A row for each class: where its points lie, and how many have near kin."""
        columns = [
            Column("label", "class", right=False),
            Column("images", "images"),
            Column("x", "middle x", lambda v: f"{v:.1f}"),
            Column("y", "middle y", lambda v: f"{v:.1f}"),
            Column("near", "nearest point of the class %", lambda v: f"{v:.0f}"),
            Column("deep", "nearest features of the class %", lambda v: f"{v:.0f}"),
        ]
        near, deep = self.neighbours(self.points), self.neighbours(self.features)
        rows = []
        for _, label, own in self._classes():
            x, y = map(float, self.points[own].mean(0))
            row = {"label": label, "images": int(own.sum()), "x": x, "y": y}
            row["near"] = 100 * float(near[own].mean())
            rows.append({**row, "deep": 100 * float(deep[own].mean())})
        title = f"{self.title}: {self.features.shape[1]} features ({self.layer}) as "
        return Table(columns, rows, f"{title}points by {self.method}", [self.note])

    def _classes(self):
        """Each class that has images: its number, its name, and which they are."""
        for k, label in enumerate(self.labels):
            if (own := self.classes == k).any():
                yield k, label, own

    def __str__(self) -> str:
        return str(self.table)

    def to_dict(self) -> dict:
        """Return points, classes and table as values that JSON can hold."""
        names = ("title", "layer", "method", "note", "labels")
        return {
            **{name: getattr(self, name) for name in names},
            "points": self.points.tolist(),
            "classes": self.classes.tolist(),
            "rows": [dict(row) for row in self.table.rows],
        }

    @style.drawn
    def plot(self):
        """Draw the points, a colour and a marker for each class."""
        figure = style.canvas(9.5, 7)
        axes = figure.subplots()
        look = {"s": 22, "alpha": 0.8, "edgecolors": "#333333", "linewidths": 0.3}
        for k, label, own in self._classes():
            look |= {"marker": _MARKERS[k % len(_MARKERS)], "label": label}
            axes.scatter(*self.points[own].T, c=CYCLE[k % len(CYCLE)], **look)
        axes.set_xlabel(f"{self.method}, first dimension (no unit)")
        axes.set_ylabel(f"{self.method}, second dimension (no unit)")
        title = f"{self.title}\n{self.layer}; {self.note}"
        axes.set_title(title, fontsize=10, wrap=True)
        if len(self.labels) <= 30:
            figure.legend(loc="outside right center", frameon=False, title="class")
        return figure


def embedding(
    model,
    data,
    layer=None,
    *,
    method: str = "auto",
    images: int = 500,
    part: str = "test",
    labels=None,
    seed: int = 0,
) -> Embedding:
    """Lay out images in the plane by the last features that a network has of them.

    Args:
        model, data, part, labels: as of `kerascnn.explain.confusion`.
        layer: whose output to take; feature maps are averaged over their places.
            Default: what goes into the last layer with weights, the classifier.
        method: "tsne" (needs scikit-learn: pip install kerascnn[explain]), "pca", or
            "auto": t-SNE where scikit-learn is installed, else PCA; `.note` says which.
        images: the most images, chosen at random from more; 3 or more.
        seed: of the choice, and of t-SNE.

    Raises ValueError: fewer than 3 images, or no such method, part or layer;
    ImportError: "tsne" without scikit-learn; TypeError: the data are something else.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE" (JMLR 2008).
    """
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}; received {method!r}")
    found, own, title = images_of(data, part)
    count = min(images, len(found.y))
    if count < 3:
        raise ValueError(f"points need 3 images or more; received {count}")
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(found.y))[:count])
    x, classes = np.asarray(found.x)[chosen], np.asarray(found.y)[chosen]
    starts = range(0, count, _BATCH)
    found = [_features(model, x[start : start + _BATCH], layer) for start in starts]
    features, name = np.concatenate([part for part, _ in found]), found[0][1]
    points, word, note = _laid_out(features, method, seed)
    names = tuple(labels or own or map(str, range(int(classes.max()) + 1)))
    title = f"{model.name} on {count} images of {title}"
    return Embedding(title, name, word, note, points, features, classes, names)


def _features(model, x, layer) -> tuple[np.ndarray, str]:
    """Features (N, n) of images, and what they are."""
    seen = record(model, batch(model, x))
    if layer is not None:
        position = seen.find(layer)
        values, name = seen.values(position), f"output of {seen.names[position]}"
    else:
        answer = head(model, batch(model, x[:SAMPLE])).index if seen.connected else 0
        heavy = [i for i in seen.before(answer) if weighted(seen.calls[i])]
        if not heavy:
            raise ValueError(f"{model.name} has no layer with weights: name a layer")
        values = seen.array(seen.calls[heavy[-1]].inputs[0])
        name = f"input of {seen.names[heavy[-1]]}"
    if values.ndim == 4:
        values, name = values.mean((1, 2)), f"{name}, averaged over its places"
    return values.reshape(len(values), -1), name


def _laid_out(features, method, seed) -> tuple[np.ndarray, str, str]:
    """Points (N, 2), the method, and a line about it."""
    if method != "pca" and importlib.util.find_spec("sklearn") is not None:
        from sklearn.manifold import TSNE

        near = float(min(30, (len(features) - 1) / 3))
        tsne = TSNE(perplexity=near, init="pca", random_state=seed)
        note = f"t-SNE of scikit-learn, perplexity {near:g}: near points are alike; "
        note += "distances between groups mean little"
        return tsne.fit_transform(features).astype(np.float32), "t-SNE", note
    if method == "tsne":
        raise ImportError(
            "t-SNE needs scikit-learn: pip install 'kerascnn[explain]', or "
            'method="pca"'
        )
    points, share = principal_components(features)
    why = "" if method == "pca" else ", as scikit-learn (for t-SNE) is not installed"
    note = f"PCA{why}: {100 * share:.0f} % of the variance is in the two dimensions"
    return points, "PCA", note


def principal_components(features) -> tuple[np.ndarray, float]:
    """Project features (N, n) on the two directions of greatest variance.

    Returns float32 (N, 2), and the share of the variance that they hold. A direction is
    turned so that its greatest weight is positive, on every machine.
    """
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    signs = [np.sign(d[np.abs(d).argmax()]) or 1.0 for d in directions]
    points = centred @ (directions * np.array(signs)[:, None]).T
    # Of one feature it is a line.
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    total = float((lengths**2).sum())
    share = float((lengths[:2] ** 2).sum()) / total if total else 1.0
    return points.astype(np.float32), share
