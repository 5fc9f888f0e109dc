"""Ask a server over HTTP: images in, predictions out.

    client = kerascnn.Client("http://127.0.0.1:8501", "lecture_cnn")
    client.predict(images)            # uint8 array (N, height, width, channels)
    client.predict(["photo.jpg"])     # JPEG or PNG files, by path or as bytes

Neither Keras nor TensorFlow is imported, and NumPy only where arrays are sent.
"""

import base64
import http.client
import json
import math
import os
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from kerascnn.prediction import Prediction

BATCH = 64  # images a request
BATCH_BYTES = 8 * 2**20  # of encoded images a request; base64 adds a third
UNKNOWN = (400, 404, 405, 501)  # what servers answer where they know no such path
HEADER_LENGTH = "Inference-Header-Content-Length"
RETRIED = (429, 503)  # the server is busy: it took no part of the request
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts, doubling
PATIENCE = 60.0  # seconds; a server that asks for more is not waited for
CONNECTIONS = 64  # that stay open between requests, of as many threads
CLOSED = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


class ServerError(RuntimeError):
    """A server refused or failed."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status  # of HTTP; None where it does not keep to the protocol


class Client:
    """A connection to one model of a server.

    Works with `kerascnn serve`, with TensorFlow Serving (REST API v1) and with servers
    of the Open Inference Protocol v2 that also answer v1. Arrays travel as binary
    tensors where the server knows v2, as JSON numbers where it does not; files as
    base64 in v1's JSON. Several threads may use a client; connections stay open.

    A request is repeated only where the server answers 429 or 503, which it does before
    it has begun: after a pause of 0.1 s that doubles, up to 5 s, and never before the
    server's Retry-After; and where the server had closed an idle connection.

    Args:
        url: of the server, such as "http://127.0.0.1:8501"; may end in a path and in a
            query, which every request then has. The name and password of
            "https://name:password@host" are sent as Basic authentication.
        model: name of the model; may be left out where the server has one only.
        version: number of a version, or a label such as "stable"; default: the newest.
        timeout: seconds that a connection, and each silence of the server, may take.
        retries: attempts after the first, on 429 and 503.
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
        try:
            parts = urlsplit(url)
            _ = parts.port  # out of range, or no number
        except (ValueError, TypeError, AttributeError):
            parts = None
        if not parts or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                "a server is named by a URL such as http://127.0.0.1:8501; received "
                f"{url!r}"
            )
        if not timeout > 0 or not math.isfinite(timeout):
            raise ValueError(f"timeout is a number of seconds; received {timeout!r}")
        if retries < 0:
            raise ValueError(f"retries is 0 or more; received {retries!r}")
        self._path = parts.path.rstrip("/")
        self._query = f"?{parts.query}" if parts.query else ""
        host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{host}{self._path}"  # as it is told: no password
        self.version = version
        self._model = model
        self._headers = {}
        if parts.username is not None:
            pair = f"{parts.username}:{parts.password or ''}"
            pair = base64.b64encode(unquote(pair).encode())  # RFC 7617
            self._headers = {"Authorization": f"Basic {pair.decode()}"}
        self._timeout, self._retries = timeout, retries
        self._pool = self._open()
        self._binary: bool | None = None  # whether the server knows v2; None: not asked
        # A version and the names of its classes; None where the server tells no names.
        self._names: tuple[int, tuple[str, ...]] | None = (-1, ())

    def __repr__(self) -> str:
        return f"Client({self.url!r}, {self._model!r}, {self.version!r})"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Close what is open; the next request connects again."""
        self._pool.close()
        self._pool = self._open()

    @property
    def model(self) -> str:
        """The name of the model that is asked; the only one, where none was named."""
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

        Of each, `kerascnn serve` tells "version", the number that answers by default;
        "labels", the names of the classes; "input", [height, width, channels]; "files",
        whether it takes JPEG and PNG files. Servers of v2's index tell "version" only;
        TensorFlow Serving lists no models, which is a ServerError.
        """
        if listed := self._known(self._json, "GET", "/page/models"):
            return {entry.pop("name"): entry for entry in listed["models"]}
        index = ("POST", "/v2/repository/index", {"ready": True})
        if (listed := self._known(self._json, *index)) is not None:
            return {e["name"]: {"version": int(e["version"])} for e in listed}
        raise ServerError(
            f"{self.url} does not list its models, as TensorFlow Serving does not; "
            "name the one to ask",
            404,
        )

    def status(self) -> dict[int, str]:
        """Return the state of each version: {2: "AVAILABLE"}; START, LOADING, END, …"""
        listed = self._json("GET", self._model_path("v1"))["model_version_status"]
        return {int(entry["version"]): entry["state"] for entry in listed}

    def predict(self, images: Any, *, batch_size: int = BATCH) -> list[Prediction]:
        """Let the server classify images.

        Args:
            images: uint8 array (N, height, width, channels) of the size that the
                network takes; or a sequence of JPEG or PNG files of any size, each
                as its bytes or as a path.
            batch_size: images a request; fewer where their files are large.

        Returns:
            A prediction for each image, in their order. Classes whose names the server
            does not tell (TensorFlow Serving names the most probable one only) are
            called "class 0", "class 1", ….

        Raises:
            ValueError, TypeError: what is given are no images as above.
            FileNotFoundError: a file is not there.
            ServerError: the server refused the images, knows no such model or
                version, failed, or was still busy after all attempts.
            ConnectionError: no server answers at the URL.
            TimeoutError: the server was silent for longer than `timeout`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is 1 or more; received {batch_size!r}")
        found = []
        if hasattr(images, "dtype"):
            if str(images.dtype) != "uint8" or images.ndim != 4:
                raise ValueError(
                    "images are a uint8 array (N, height, width, channels), pixels "
                    f"0…255; received {images.dtype} {tuple(images.shape)}"
                    + ("; one image is images[None]" if images.ndim == 3 else "")
                )
            # Half, as JSON has up to five bytes for a pixel, and a server 32 MiB.
            most = max(1, BATCH_BYTES // 2 // max(1, images[:1].nbytes))
            batch_size = min(batch_size, most)
            for start in range(0, len(images), batch_size):
                part = images[start : start + batch_size]
                numbers = range(start, start + len(part))
                # v2 has no labels of versions.
                if not isinstance(self.version, str) and self._knows_v2():
                    found += self._predict_binary(numbers, part)
                else:
                    rows = part.tolist()
                    found += self._predict_rows(numbers, "serving_default", rows)
            return found
        if isinstance(images, bytes | bytearray | str | os.PathLike):
            raise TypeError(
                "predict takes a list of files, or an array (N, height, width, "
                f"channels); received one {type(images).__name__}: put it in a list"
            )
        for batch in _batches(images, batch_size):
            asked, files = zip(*batch, strict=True)
            rows = [{"b64": base64.b64encode(file).decode()} for file in files]
            found += self._predict_rows(asked, "serve_bytes", rows)
        return found

    def predict_files(self, files: Iterable[str | os.PathLike]) -> list[Prediction]:
        """Let the server classify image files; as `kerascnn.serving.predict_files`."""
        return self.predict([Path(file) for file in files])

    # What is sent

    def _predict_rows(self, asked, signature: str, rows: list) -> list[Prediction]:
        path = self._model_path("v1") + ":predict"
        body = {"signature_name": signature, "instances": rows}
        try:
            told = self._json("POST", path, body)["predictions"]
            found = [(r["probabilities"], r["class_id"], r["label"]) for r in told]
            return self._named(asked, found)
        except ServerError as error:
            if error.status != 413 or len(rows) < 2:
                raise
            half = len(rows) // 2  # too many pixels for one request
            first = self._predict_rows(asked[:half], signature, rows[:half])
            return first + self._predict_rows(asked[half:], signature, rows[half:])
        except (LookupError, TypeError, ValueError) as error:
            raise self._strange(error) from error

    def _predict_binary(self, asked, images) -> list[Prediction]:
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
                {"name": name, "parameters": {"binary_data": name == "probabilities"}}
                for name in ("probabilities", "class_id", "label")
            ],
        }
        text = json.dumps(head).encode()
        kind, length = "application/octet-stream", str(len(text))
        headers = {"Content-Type": kind, HEADER_LENGTH: length}
        answered, body = self._request(
            "POST", self._model_path("v2") + "/infer", text + pixels, headers
        )
        try:
            length = int(answered.get(HEADER_LENGTH, len(body)))
            told = json.loads(body[:length])
            outputs = {o["name"]: o for o in told["outputs"]}
            scores = outputs["probabilities"]
            if "data" in scores:  # a server that does not send binary tensors
                values = np.asarray(scores["data"], "<f4")
            else:
                values = np.frombuffer(body, "<f4", offset=length)
            version = told.get("model_version")
            rows = zip(
                values.reshape(scores["shape"]).tolist(),
                outputs["class_id"]["data"],
                outputs["label"]["data"],
                strict=True,
            )
            return self._named(asked, rows, int(version) if version else None)
        except (LookupError, TypeError, ValueError) as error:
            raise self._strange(error) from error

    def _named(self, asked, rows, version: int | None = None) -> list[Prediction]:
        """Return predictions of rows (probabilities, class, label), with all names.

        `version` is the one that answered, where the server says so.
        """
        found = [(list(map(float, row[0])), int(row[1]), row[2]) for row in rows]

        def fit(listed, labels) -> bool:
            fits = (len(labels) == len(row) and labels[i] == s for row, i, s in found)
            return version in (None, listed) and all(fits)

        labels = None
        # The names listed are those of the version that is served by default.
        if self.version is None and self._names is not None and found:
            if version is None or not fit(*self._names):
                self._names = self._listed()
            if self._names is not None and fit(*self._names):
                labels = self._names[1]
        predictions = []
        for what, (values, best, label) in zip(asked, found, strict=True):
            names = list(labels or map("class {}".format, range(len(values))))
            names[best] = label
            order = sorted(range(len(values)), key=lambda i: (i != best, -values[i]))
            scores = {names[i]: values[i] for i in order}
            predictions.append(Prediction(scores, what, best, labels))
        return predictions

    def _listed(self) -> tuple[int, tuple[str, ...]] | None:
        """Return the version served and its classes; None where they are not told."""
        try:
            entry = self.models().get(self.model, {})
            return entry["version"], tuple(entry["labels"])
        except (KeyError, ServerError):
            return None

    def _knows_v2(self) -> bool:
        if self._binary is None:
            live = self._known(self._request, "GET", "/v2/health/live")
            self._binary = live is not None
        return self._binary

    def _known(self, ask, *request):
        """Return what is answered, None where the server knows no such path."""
        try:
            return ask(*request)
        except ServerError as error:
            if error.status not in UNKNOWN:
                raise
            return None

    def _model_path(self, protocol: str) -> str:
        path = f"/{protocol}/models/{quote(self.model, safe='')}"
        if self.version is None:
            return path
        kind = "labels" if isinstance(self.version, str) else "versions"
        return f"{path}/{kind}/{quote(str(self.version), safe='')}"

    # How it is sent

    def _open(self):
        options = {"timeout": self._timeout, "maxsize": CONNECTIONS}
        pool = urllib3.connection_from_url(self.url, **options)
        pool.ConnectionCls = _HTTPS if self.url.startswith("https") else _HTTP
        return pool

    def _json(self, method: str, path: str, body: dict | None = None):
        """Send a JSON object or nothing; return the object that is answered."""
        encoded = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        _, answer = self._request(method, path, encoded, headers)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise self._strange(error) from error

    def _strange(self, error: Exception) -> ServerError:
        return ServerError(
            f"{self.url} does not answer as the protocol says ({error!r}); is it a "
            "server of a network that kerascnn exported?"
        )

    def _request(self, method: str, path: str, body=None, headers=None):
        """Return the headers of an answer, and its body; raises as `predict`."""
        attempts, closed = 0, False
        while True:
            try:
                answer = self._pool.urlopen(
                    method,
                    self._path + path + self._query,
                    body,
                    {**self._headers, **(headers or {})},
                    retries=False,
                    redirect=False,
                )
            except exceptions.HTTPError as error:
                if isinstance(error.args[-1], _ClosedError) and not closed:
                    closed = True
                    continue
                unheard = isinstance(error, exceptions.NewConnectionError)
                if isinstance(error, exceptions.TimeoutError) and not unheard:
                    raise TimeoutError(
                        f"{self.url} was silent for {self._timeout:g} s; try again "
                        "later, or in Python with Client(url, timeout=120)"
                    ) from error
                raise ConnectionError(
                    f"no server answers at {self.url}: {error}; start one with "
                    "kerascnn serve FOLDER"
                ) from error
            if answer.status < 400:
                return answer.headers, answer.data
            attempts += 1
            asked = retry_after(answer)
            final = answer.status not in RETRIED or attempts > self._retries
            if final or asked > PATIENCE:
                break
            time.sleep(pause_before(attempts - 1, asked))
        try:  # v1 and v2 have {"error": "…"}
            reason = json.loads(answer.data)["error"]
        except (ValueError, KeyError, TypeError):
            reason = answer.data[:200].decode("utf-8", "replace")
        reason = " ".join(str(reason).split())
        reason = reason or http.client.responses.get(answer.status, "no reason given")
        told = f"{self.url} answers {answer.status}: {reason}"
        if answer.status in RETRIED:
            times = f"{attempts} attempt{'s' * (attempts > 1)}"
            told += f" (after {times}); try again later"
        raise ServerError(told, answer.status)


class _ClosedError(ConnectionError):
    """A server had closed a connection that stayed open after an answer."""


class _HTTP(HTTPConnection):
    """A connection that knows whether a server has answered on it.

    Where the server closes an idle one, the request that crosses this was not read.
    """

    answered = False

    def connect(self):
        self.answered = False
        super().connect()

    def getresponse(self):
        try:
            response = super().getresponse()
        except CLOSED as error:
            if self.answered:
                raise _ClosedError(str(error)) from error
            raise
        self.answered = True
        return response


class _HTTPS(_HTTP, HTTPSConnection):
    pass


def retry_after(answer) -> float:
    """Return the server's Retry-After in seconds; 0 if it names none."""
    try:
        return urllib3.Retry().get_retry_after(answer) or 0.0
    except exceptions.InvalidHeader:
        return 0.0


def pause_before(attempt: int, asked: float = 0.0) -> float:
    """Return the seconds to wait: what the server asked for, or doubling up to 5.

    At random up to a half less, so that not all who failed together return together.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    pause = longest * random.uniform(0.5, 1.0)
    return asked + pause - longest / 2 if asked > 0 else pause


def _batches(images, most: int) -> Iterator[list[tuple]]:
    """Group image files (path or number, content) by their number and their bytes."""
    group: list[tuple] = []
    size = 0
    for asked, image in enumerate(images):
        if isinstance(image, bytes | bytearray):
            content, name = bytes(image), "an image"
        elif isinstance(image, str | os.PathLike):
            name = asked = Path(image)
            if not asked.is_file():
                raise FileNotFoundError(f"there is no image {asked}")
            content = asked.read_bytes()
        else:
            raise TypeError(
                "an image is a path or the bytes of a JPEG or PNG file; received "
                f"{type(image).__name__}: give pixels as one array (N, height, width, "
                "channels)"
            )
        if not content.startswith((b"\x89PNG", b"\xff\xd8")):
            raise ValueError(f"{name} is neither a JPEG nor a PNG file")
        if group and (len(group) == most or size + len(content) > BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append((asked, content))
        size += len(content)
    if group:
        yield group
