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
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    NewConnectionError,
)
from urllib3.exceptions import TimeoutError as Silence

BATCH = 64  # images a request
BATCH_BYTES = 8 * 2**20  # of encoded images a request; base64 adds a third
UNKNOWN = (400, 404, 405, 501)  # what servers answer where they know no such path
HEADER_LENGTH = "Inference-Header-Content-Length"
RETRIED = (429, 503)  # the server is busy: it took no part of the request
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts, doubling
PATIENCE = 60.0  # seconds; a server that asks for more is not waited for
CONNECTIONS = 64  # that stay open between requests, of as many threads
CLOSED = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


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
    as base64 in v1's JSON. A client may be used by several threads; connections stay
    open between requests.

    Attempts are repeated only where the server answers 429 or 503, which it does
    before it has begun: after a pause of 0.1 s that doubles, up to 5 s, shortened at
    random by up to a half so that clients do not return together, and never before the
    server's Retry-After. Other failures are raised at once; of these only a connection
    that the server had closed while it was idle is opened anew.

    Args:
        url: of the server, such as "http://127.0.0.1:8501"; may end in a path, where
            a proxy puts the server below one, and in a query, which every request then
            has. The name and password of "https://name:password@host" are sent as
            Basic authentication.
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

    def predict_files(self, files: Iterable[str | os.PathLike]) -> list:
        """Let the server classify image files.

        Returns:
            A `kerascnn.prediction.Prediction` for each file, as
            `kerascnn.serving.predict_files` gives them.

        Raises:
            As `predict`.
        """
        from kerascnn import prediction

        files = [Path(file) for file in files]
        return [
            prediction.Prediction(found.ranking, file)
            for file, found in zip(files, self.predict(files), strict=True)
        ]

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
            return self._named(
                (row["probabilities"], row["class_id"], row["label"]) for row in rows
            )
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
            return self._named(rows, int(version) if version else None)
        except (KeyError, TypeError, ValueError) as error:
            raise self._connection.strange(error) from error

    def _named(self, rows, version: int | None = None) -> list[Prediction]:
        """Return predictions, with the names of all classes where they are told.

        Args:
            rows: probabilities, class and its label, of each image.
            version: the one that answered, where the server says so.
        """
        found = [(row[2], int(row[1]), tuple(map(float, row[0]))) for row in rows]

        def fit(listed, labels) -> bool:
            return version in (None, listed) and all(
                len(labels) == len(values) and labels[i] == label
                for label, i, values in found
            )

        labels = None
        # The names listed are those of the version that is served by default.
        if self.version is None and self._names is not None and found:
            if version is None or not fit(*self._names):
                self._names = self._listed()
            if self._names is not None and fit(*self._names):
                labels = self._names[1]
        return [Prediction(*row, labels) for row in found]

    def _listed(self) -> tuple[int, tuple[str, ...]] | None:
        """Return the version served and its classes; None where they are not told."""
        try:
            entry = self.models().get(self.model, {})
            return entry["version"], tuple(entry["labels"])
        except (KeyError, ServerError):
            return None

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


class ServerError(RuntimeError):
    """A server refused or failed.

    Attributes:
        status: the HTTP status, such as 404; None where the answer is not what the
            protocol promises.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Connection:
    """Requests to one server, of any number of threads.

    Args:
        url: of the server, such as "http://127.0.0.1:8501", perhaps with name and
            password, a path and a query.
        timeout: seconds that a connection, and each silence of the server, may take.
        retries: attempts after the first, on 429 and 503.

    Raises:
        ValueError: the URL is not of HTTP, or another argument is out of range.
    """

    def __init__(self, url: str, timeout: float = 30.0, retries: int = 5):
        try:
            parts = urllib.parse.urlsplit(url)
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
        self._headers = {}
        if parts.username is not None:
            pair = f"{parts.username}:{parts.password or ''}"
            pair = base64.b64encode(urllib.parse.unquote(pair).encode())  # RFC 7617
            self._headers = {"Authorization": f"Basic {pair.decode()}"}
        self.timeout = timeout
        self._attempts = Attempts(
            total=None,
            status=retries,
            read=1,
            status_forcelist=RETRIED,
            allowed_methods=None,
            raise_on_status=False,
        )
        self._pool = self._open()

    def _open(self):
        pool = urllib3.connection_from_url(
            self.url, timeout=self.timeout, maxsize=CONNECTIONS
        )
        pool.ConnectionCls = _HTTPS if self.url.startswith("https") else _HTTP
        return pool

    def close(self) -> None:
        """Close what is open; the next request connects again."""
        self._pool.close()
        self._pool = self._open()

    def json(self, method: str, path: str, body: dict | None = None):
        """Send a JSON object or nothing; return the object that is answered.

        Raises:
            As `request`, and ServerError where the answer is no JSON.
        """
        encoded = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        _, answer = self.request(method, path, encoded, headers)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise self.strange(error) from error

    def strange(self, error: Exception) -> ServerError:
        """Return the error for an answer that is not what the protocol promises."""
        return ServerError(
            f"{self.url} does not answer as the protocol says ({error!r}); is it a "
            "server of a network that kerascnn exported?"
        )

    def request(self, method: str, path: str, body=None, headers=None):
        """Send a request until it is answered with something else than 429 and 503.

        Args:
            method: of HTTP, such as "POST".
            path: below the URL of the server, from its "/" on.
            body: bytes or None.
            headers: a dictionary or None.

        Returns:
            The headers of the answer, whose names may be asked for in any case, and
            its body as bytes.

        Raises:
            ServerError: the status is 400 or more, at the last attempt.
            ConnectionError: no server answers at the URL.
            TimeoutError: the server was silent for longer than `timeout`.
        """
        try:
            answer = self._pool.urlopen(
                method,
                self._path + path + self._query,
                body,
                {**self._headers, **(headers or {})},
                retries=self._attempts,
                redirect=False,
            )
        except HTTPError as error:
            if isinstance(error, Silence) and not isinstance(error, NewConnectionError):
                raise TimeoutError(
                    f"{self.url} was silent for {self.timeout:g} s; give the client a "
                    "longer timeout"
                ) from error
            raise ConnectionError(
                f"no server answers at {self.url}: {error}; start one with "
                "kerascnn serve FOLDER"
            ) from error
        if answer.status < 400:
            return answer.headers, answer.data
        told = f"{self.url} answers {answer.status}: {_reason(answer)}"
        if answer.status in RETRIED:
            made = 1 + sum(1 for past in answer.retries.history if past.status)
            told += f" (after {made} attempt{'s' if made > 1 else ''}); try again later"
        raise ServerError(told, answer.status)


class _ClosedError(ConnectionError):
    """A server had closed a connection that stayed open after an answer."""


class _HTTP(HTTPConnection):
    """A connection that knows whether a server has answered on it.

    A server may close an idle connection at any time, and a request that crosses its
    closing has not been read. One on a new connection may have been.
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


class Attempts(urllib3.Retry):
    """When a request is sent again: where the server is busy, or had closed."""

    def increment(
        self, method=None, url=None, response=None, error=None, *rest, **more
    ):
        """Return the attempts that are left; raise what is final."""
        if error is not None and not isinstance(error.args[-1], _ClosedError):
            raise error
        if response is not None and self.asked(response) > PATIENCE:
            raise MaxRetryError(None, url)  # the response is returned as it is
        return super().increment(method, url, response, error, *rest, **more)

    def asked(self, response) -> float:
        """Return the server's Retry-After in seconds; 0 if it names none."""
        try:
            return self.get_retry_after(response) or 0.0
        except InvalidHeader:
            return 0.0

    def sleep(self, response=None) -> None:
        """Wait before the next attempt, not before a closed connection is replaced."""
        if response is not None:
            attempt = sum(1 for past in self.history if past.status) - 1
            time.sleep(pause_before(attempt, self.asked(response)))


def pause_before(attempt: int, asked: float = 0.0) -> float:
    """Return the seconds to wait before the next attempt.

    They double from attempt to attempt, up to 5 s, and are shortened at random by up
    to a half, so that clients that failed together do not return together.

    Args:
        attempt: number of attempts that failed before this one.
        asked: seconds that the server asks for.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    pause = longest * random.uniform(0.5, 1.0)
    return asked + pause - longest / 2 if asked > 0 else pause


def _reason(answer) -> str:
    """Return the reason in an error's body: v1 and v2 have {"error": "…"}."""
    try:
        reason = json.loads(answer.data)["error"]
    except (ValueError, KeyError, TypeError):
        reason = answer.data[:200].decode("utf-8", "replace")
    reason = " ".join(str(reason).split())
    return reason or http.client.responses.get(answer.status, "no reason given")


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
