"""Ask a server over HTTP: images in, predictions out.

    client = kerascnn.Client("http://127.0.0.1:8501", "lecture_cnn")
    client.predict(images)            # uint8 array (N, height, width, channels)
    client.predict(["photo.jpg"])     # JPEG or PNG files, by path or as bytes

Only the standard library is used, and NumPy where arrays are sent: neither Keras nor
TensorFlow is imported.
"""

import base64
import json
import os
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerascnn.serving.transport import Connection, ServerError

BATCH = 64  # images a request
BATCH_BYTES = 8 * 2**20  # of encoded images a request; base64 adds a third
UNKNOWN = (400, 404, 405, 501)  # what servers answer where they know no such path
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Prediction:
    """What a server says of one image.

    Attributes:
        label: name of the most probable class.
        class_id: its number.
        probabilities: of every class, in the order of the network's outputs.
        labels: names of the classes in that order; None where the server does not
            tell them (TensorFlow Serving names the most probable class only).
    """

    label: str
    class_id: int
    probabilities: tuple[float, ...]
    labels: tuple[str, ...] | None = None

    @property
    def ranking(self) -> dict[str, float]:
        """The probability of each class by its name, the greatest first.

        Classes whose names the server does not tell are called "class 0", "class 1", ….
        """
        names = list(self.labels or map("class {}".format, range(len(self))))
        names[self.class_id] = self.label
        order = sorted(range(len(self)), key=lambda i: -self.probabilities[i])
        return {names[i]: self.probabilities[i] for i in order}

    def __len__(self) -> int:
        return len(self.probabilities)

    def __str__(self) -> str:
        best = list(self.ranking.items())[:3]
        return ", ".join(f"{label} {value:.1%}" for label, value in best)


class Client:
    """A connection to one model of a server.

    Works with `kerascnn serve`, with TensorFlow Serving (REST API v1) and with servers
    of the Open Inference Protocol v2 that also answer v1. Arrays travel as binary
    tensors where the server knows v2, as JSON numbers where it does not; files travel
    as base64 in v1's JSON. A client may be used by several threads; each has a
    connection of its own, which stays open between requests.

    Attempts are repeated only where the server answers 429 or 503, which it does
    before it has begun: after a pause of 0.1 s that doubles, up to 5 s, shortened at
    random by up to a half so that clients do not return together, and never before the
    server's Retry-After. Other failures are raised at once; of these only a connection
    that the server had closed while it was idle is opened anew.

    Args:
        url: of the server, such as "http://127.0.0.1:8501"; may end in a path, where
            a proxy puts the server below one.
        model: name of the model; may be left out where the server has one only.
        version: number of a version, or a label such as "stable"; default: the
            newest.
        timeout: seconds that a connection, and each silence of the server, may take.
        retries: attempts after the first, on 429 and 503.

    Raises:
        ValueError: the URL is not of HTTP, or another argument is out of range.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        version: int | str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        self._connection = Connection(url, timeout, retries)
        self.url = self._connection.url
        self.version = version
        self._model = model
        self._binary: bool | None = None  # whether the server knows v2; None: not asked
        self._labels: dict[str, tuple[str, ...] | None] = {}

    def __repr__(self) -> str:
        return f"Client({self.url!r}, {self._model!r}, {self.version!r})"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Close this thread's connection; the next request opens another."""
        self._connection.close()

    @property
    def model(self) -> str:
        """The name of the model that is asked.

        Raises:
            ValueError: none was named, and the server has none or several.
            ServerError: none was named, and the server does not list its models.
        """
        if self._model is None:
            names = list(self.models())
            if len(names) != 1:
                raise ValueError(
                    f"{self.url} serves {len(names)} models"
                    f"{': ' if names else ''}{', '.join(names)}; name one"
                )
            self._model = names[0]
        return self._model

    def models(self) -> dict[str, dict[str, Any]]:
        """Return the models that answer, by name.

        Returns:
            For each model a dictionary. `kerascnn serve` tells "version", the number
            that answers by default; "labels", the names of the classes; "input",
            [height, width, channels]; "files", whether it takes JPEG and PNG files.
            Servers with version 2's index of the repository tell "version" only.

        Raises:
            ServerError: the server does not list its models, as TensorFlow Serving
                does not.
        """
        try:
            listed = self._connection.json("GET", "/page/models")["models"]
            return {entry.pop("name"): entry for entry in listed}
        except ServerError as error:
            if error.status not in UNKNOWN:
                raise
        try:
            listed = self._connection.json(
                "POST", "/v2/repository/index", {"ready": True}
            )
            return {e["name"]: {"version": int(e["version"])} for e in listed}
        except ServerError as error:
            if error.status not in UNKNOWN:
                raise
            raise ServerError(
                f"{self.url} does not list its models, as TensorFlow Serving does "
                "not; name the one to ask",
                error.status,
            ) from None

    def status(self) -> dict[int, str]:
        """Return the state of each version of the model: {2: "AVAILABLE"}.

        The states are START, LOADING, AVAILABLE, UNLOADING and END.

        Raises:
            ServerError: there is no such model or version.
        """
        answer = self._connection.json("GET", self._path("v1"))
        return {
            int(entry["version"]): entry["state"]
            for entry in answer["model_version_status"]
        }

    def predict(self, images: Any, *, batch_size: int = BATCH) -> list[Prediction]:
        """Let the server classify images.

        Args:
            images: uint8 array (N, height, width, channels) of the size that the
                network takes; or a sequence of JPEG or PNG files of any size, each
                as its bytes or as a path.
            batch_size: images a request; fewer where their files are large.

        Returns:
            A prediction for each image, in their order; none for none.

        Raises:
            ValueError: an array that is not uint8 or has another number of
                dimensions, or a file that is neither JPEG nor PNG.
            TypeError: something else than images.
            FileNotFoundError: a file is not there.
            ServerError: the server refused the images, knows no such model or
                version, failed, or was still busy after all attempts.
            ConnectionError: no server answers at the URL.
            TimeoutError: the server was silent for longer than `timeout`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is 1 or more; received {batch_size!r}")
        if hasattr(images, "dtype"):
            return self._predict_array(images, batch_size)
        if isinstance(images, bytes | bytearray | str | os.PathLike):
            raise TypeError(
                "predict takes a list of files, or an array (N, height, width, "
                f"channels); received one {type(images).__name__}: put it in a list"
            )
        found = []
        for files in _batches(map(_encoded, images), batch_size):
            rows = [{"b64": base64.b64encode(file).decode()} for file in files]
            body = {"signature_name": "serve_bytes", "instances": rows}
            found += self._predict_rows(body, len(rows))
        return found

    def predict_files(
        self, files: Iterable[str | os.PathLike]
    ) -> list[tuple[Path, dict[str, float]]]:
        """Let the server classify image files.

        Returns:
            For each file its path and the probability of each class, the greatest
            first, as `kerascnn.serving.predict_files` gives them.

        Raises:
            As `predict`.
        """
        files = [Path(file) for file in files]
        found = self.predict(files)
        return [(f, p.ranking) for f, p in zip(files, found, strict=True)]

    # What is sent

    def _predict_array(self, images, batch_size: int) -> list[Prediction]:
        if str(images.dtype) != "uint8" or images.ndim != 4:
            raise ValueError(
                "images are a uint8 array (N, height, width, channels), pixels "
                f"0…255; received {images.dtype} {tuple(images.shape)}"
                + ("; one image is images[None]" if images.ndim == 3 else "")
            )
        found = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            # v2 has no labels of versions.
            if not isinstance(self.version, str) and self._knows_v2():
                found += self._predict_binary(part)
            else:
                body = {
                    "signature_name": "serving_default",
                    "instances": part.tolist(),
                }
                found += self._predict_rows(body, len(part))
        return found

    def _predict_rows(self, body: dict, count: int) -> list[Prediction]:
        answer = self._connection.json("POST", self._path("v1") + ":predict", body)
        try:
            rows = answer["predictions"]
            if len(rows) != count:
                raise ValueError(f"{len(rows)} predictions for {count} images")
            return [
                self._prediction(row["probabilities"], row["class_id"], row["label"])
                for row in rows
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._connection.strange(error) from error

    def _predict_binary(self, images) -> list[Prediction]:
        import numpy as np

        pixels = np.ascontiguousarray(images).tobytes()
        head = {
            "inputs": [
                {
                    "name": "image",
                    "shape": list(images.shape),
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": len(pixels)},
                }
            ],
            "outputs": [
                {"name": "probabilities", "parameters": {"binary_data": True}},
                {"name": "class_id", "parameters": {"binary_data": False}},
                {"name": "label", "parameters": {"binary_data": False}},
            ],
        }
        text = json.dumps(head).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            HEADER_LENGTH: str(len(text)),
        }
        answered, body = self._connection.request(
            "POST", self._path("v2") + "/infer", text + pixels, headers
        )
        try:
            length = int(answered.get(HEADER_LENGTH, len(body)))
            outputs = {o["name"]: o for o in json.loads(body[:length])["outputs"]}
            scores = outputs["probabilities"]
            if "data" in scores:  # a server that does not send binary tensors
                values = np.asarray(scores["data"], "<f4")
            else:
                values = np.frombuffer(body, "<f4", offset=length)
            return [
                self._prediction(*row)
                for row in zip(
                    values.reshape(scores["shape"]).tolist(),
                    outputs["class_id"]["data"],
                    outputs["label"]["data"],
                    strict=True,
                )
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._connection.strange(error) from error

    def _prediction(self, probabilities, class_id, label) -> Prediction:
        values = tuple(map(float, probabilities))
        labels = self._class_labels()
        if labels is not None and len(labels) != len(values):
            labels = None  # those of another version
        return Prediction(label, int(class_id), values, labels)

    def _class_labels(self) -> tuple[str, ...] | None:
        """Return the names of all classes, where the server tells them."""
        # Those of the version that is served by default: of another they may differ.
        if self.version is not None:
            return None
        if self.model not in self._labels:
            try:
                labels = self.models().get(self.model, {}).get("labels")
            except ServerError:
                labels = None
            self._labels[self.model] = tuple(labels) if labels else None
        return self._labels[self.model]

    def _knows_v2(self) -> bool:
        if self._binary is None:
            try:
                self._connection.request("GET", "/v2/health/live")
                self._binary = True
            except ServerError as error:
                if error.status not in UNKNOWN:
                    raise
                self._binary = False
        return self._binary

    def _path(self, protocol: str) -> str:
        path = f"/{protocol}/models/{urllib.parse.quote(self.model, safe='')}"
        if self.version is None:
            return path
        kind = "labels" if isinstance(self.version, str) else "versions"
        return f"{path}/{kind}/{urllib.parse.quote(str(self.version), safe='')}"


def _encoded(image) -> bytes:
    """Return the bytes of a JPEG or PNG file."""
    if isinstance(image, bytes | bytearray):
        content, name = bytes(image), "an image"
    elif isinstance(image, str | os.PathLike):
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f"there is no image {path}")
        content, name = path.read_bytes(), str(path)
    else:
        raise TypeError(
            "an image is a path or the bytes of a JPEG or PNG file; received "
            f"{type(image).__name__}: give pixels as one array (N, height, width, "
            "channels)"
        )
    if not content.startswith((b"\x89PNG", b"\xff\xd8")):
        raise ValueError(f"{name} is neither a JPEG nor a PNG file")
    return content


def _batches(files, most: int) -> Iterator[list[bytes]]:
    """Group files, at most so many and so many bytes a group; one at least."""
    group: list[bytes] = []
    size = 0
    for file in files:
        if group and (len(group) == most or size + len(file) > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += len(file)
    if group:
        yield group
