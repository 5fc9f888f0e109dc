"""HTTP for the client: connections that stay open, attempts that are repeated."""

import email.utils
import http.client
import json
import math
import random
import threading
import time
import urllib.parse

RETRIED = (429, 503)  # the server is busy: it took no part of the request
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts, doubling
PATIENCE = 60.0  # seconds; a server that asks for more is not waited for
JSON = {"Content-Type": "application/json"}


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
    """Requests to one server; of each thread that asks, one connection stays open.

    Args:
        url: of the server, such as "http://127.0.0.1:8501", perhaps with a path.
        timeout: seconds that a connection, and each silence of the server, may take.
        retries: attempts after the first, on 429 and 503.

    Raises:
        ValueError: the URL is not of HTTP, or another argument is out of range.
    """

    def __init__(self, url: str, timeout: float = 30.0, retries: int = 5):
        if not _is_http(url):
            raise ValueError(
                "a server is named by a URL such as http://127.0.0.1:8501; received "
                f"{url!r}"
            )
        if not timeout > 0 or not math.isfinite(timeout):
            raise ValueError(f"timeout is a number of seconds; received {timeout!r}")
        if retries < 0:
            raise ValueError(f"retries is 0 or more; received {retries!r}")
        self.url = url.split("?")[0].rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self._parts = urllib.parse.urlsplit(self.url)
        self._local = threading.local()

    def close(self) -> None:
        """Close this thread's connection; the next request opens another."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def json(self, method: str, path: str, body: dict | None = None):
        """Send a JSON object or nothing; return the object that is answered.

        Raises:
            As `request`, and ServerError where the answer is no JSON.
        """
        encoded = None if body is None else json.dumps(body).encode()
        _, answer = self.request(method, path, encoded, JSON)
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
        for attempt in range(self.retries + 1):
            status, answered, answer = self._attempt(method, path, body, headers or {})
            if status < 400:
                return answered, answer
            if status not in RETRIED or attempt == self.retries:
                break
            pause = pause_before(attempt, answered.get("Retry-After"))
            if pause > PATIENCE:
                break
            time.sleep(pause)
        told = f"{self.url} answers {status}: {_reason(answer, status)}"
        if status in RETRIED:
            attempts = f"{attempt + 1} attempt{'s' if attempt else ''}"
            told += f" (after {attempts}); try again later"
        raise ServerError(told, status)

    def _attempt(self, method, path, body, headers):
        """Send a request once; return the status, the headers and the body."""
        while True:
            connection = getattr(self._local, "connection", None)
            reused = connection is not None
            try:
                if not reused:
                    connection = self._local.connection = self._connect()
                try:
                    connection.request(method, self._parts.path + path, body, headers)
                except (BrokenPipeError, ConnectionResetError):
                    # A server that refuses a large body may answer and close before
                    # it has read it; its answer says why.
                    if body is None:
                        raise
                response = connection.getresponse()
                answer = response.read()
                if response.will_close:
                    self.close()
                return response.status, response.headers, answer
            except TimeoutError as error:
                self.close()
                raise TimeoutError(
                    f"{self.url} was silent for {self.timeout:g} s; set a longer "
                    "timeout"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                closed = (
                    http.client.RemoteDisconnected,
                    BrokenPipeError,
                    ConnectionResetError,
                )
                # A server may close an idle connection at any time, and a request
                # that crosses its closing has not been read.
                if reused and isinstance(error, closed):
                    continue
                raise ConnectionError(
                    f"no server answers at {self.url}: {error}; start one with "
                    "kerascnn serve FOLDER"
                ) from error
            except BaseException:  # Ctrl-C: half of an answer is still in there
                self.close()
                raise

    def _connect(self):
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        return kind(self._parts.hostname, self._parts.port, timeout=self.timeout)


def pause_before(attempt: int, asked: str | None) -> float:
    """Return the seconds to wait before the next attempt.

    They double from attempt to attempt, up to 5 s, and are shortened at random by up
    to a half, so that clients that failed together do not return together.

    Args:
        attempt: number of attempts that failed before this one.
        asked: the server's Retry-After: seconds, or a date (RFC 9110, 10.2.3).
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    pause = longest * random.uniform(0.5, 1.0)
    if asked is None:
        return pause
    try:
        least = float(asked)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(asked)
        except ValueError:
            return pause  # neither seconds nor a date: as if it were not there
        least = date.timestamp() - time.time()
    if not math.isfinite(least):
        return pause
    return pause if least <= 0 else least + pause - longest / 2


def _is_http(url) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # out of range, or no number
    except (ValueError, TypeError, AttributeError):
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _reason(answer: bytes, status: int) -> str:
    """Return the reason in an error's body: v1 and v2 have {"error": "…"}."""
    try:
        reason = json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        reason = answer[:200].decode("utf-8", "replace")
    reason = " ".join(str(reason).split())
    return reason or http.client.responses.get(status, "no reason given")
