"""The application: its routes, its state, and what is done around each request."""

import contextlib
import json
import logging
import time
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kerascnn.serving.http import openinference, page, rest
from kerascnn.serving.http.limits import Bodies, Limits, RequestError
from kerascnn.serving.http.metrics import Metrics, log, logger
from kerascnn.serving.http.repository import Repository
from kerascnn.serving.http.scan import check_label

QUIET = ("/metrics", "/monitoring/", "/v2/health/")  # asked for every few seconds
DISCONNECTED = 499  # nginx's code for a client that has gone
SAMPLED = 20  # lines of the log for the requests of a second


def create_app(
    folder,
    *,
    limits: Limits | None = None,
    labels: dict[str, int] | None = None,
    versions: int = 1,
    poll: float = 1.0,
    access_log: bool | None = True,
    cors: list[str] | None = None,
) -> Starlette:
    """Return the server as an application, to be run by any ASGI server.

    The models are loaded when the application starts (its lifespan), not here.
    `app.state` has the `repository`, `limits` and `metrics`, and `stopping`: set it
    to True and /v2/health/ready says 503; and `closing`: each answer then is the last
    one of its connection.

    Args:
        folder: the folder of one model's versions, or a folder of such folders.
        limits: default `Limits()`.
        labels: versions by label, {"stable": 2}, or of one model {"name/stable": 2};
            they come before those in a model's `labels.json`.
        versions: how many of a model's newest versions are served.
        poll: seconds between two looks into the folder.
        access_log: whether each request is logged, by the logger "kerascnn.serving";
            None: at most 20 a second.
        cors: origins whose pages may ask, "https://example.org"; "*" for all.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: the folder is one version, or an argument is out of range.
    """
    if not isinstance(versions, int) or versions < 1:
        raise ValueError(f"versions is 1 or more; received {versions!r}")
    if not 0 < poll < float("inf"):
        raise ValueError(f"poll is a time in seconds; received {poll!r}")
    for key, number in (labels or {}).items():
        check_label(key.rpartition("/")[2], number)
    limits = limits or Limits()
    metrics = Metrics()
    repository = Repository(
        folder,
        limits=limits,
        metrics=metrics,
        labels=labels,
        versions=versions,
        poll=poll,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app):
        await repository.start()
        try:
            yield
        finally:
            await repository.stop()

    app = Starlette(
        routes=[
            *rest.routes,
            *openinference.routes,
            Route("/metrics", _metrics, methods=["GET"]),
            Route("/monitoring/prometheus/metrics", _metrics, methods=["GET"]),
            *page.routes,
        ],
        middleware=[
            Middleware(Observed, metrics=metrics, access_log=access_log),
            *([_cross_origin(cors)] if cors else []),
        ],
        exception_handlers={RequestError: _refuse, HTTPException: _refuse_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.repository = repository
    app.state.limits = limits
    app.state.metrics = metrics
    app.state.bodies = Bodies(limits)
    app.state.stopping = False
    app.state.closing = False
    return app


def _cross_origin(origins: list[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=[openinference.HEADER],
    )


async def _metrics(request: Request) -> Response:
    state = request.app.state
    text = state.metrics.render(state.repository.models)
    return Response(text, headers={"content-type": state.metrics.content_type})


def _error(status: int, message: str, headers=None) -> Response:
    # ASCII: a message may repeat half a character of what was received.
    text = json.dumps({"error": message})
    return Response(text, status, headers, media_type="application/json")


async def _refuse(request: Request, error: RequestError) -> Response:
    headers = None
    if error.retry_after is not None:
        headers = {"retry-after": str(error.retry_after)}
    return _error(error.status, error.message, headers)


async def _refuse_route(request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, error.detail, error.headers)


class Observed:
    """Middleware: counts and logs each request, and answers what fails with 500.

    What a handler puts into `scope["notes"]` (protocol, model, images) goes into the
    log and the metrics. Neither bodies nor messages of errors are logged: both may
    repeat contents.
    """

    def __init__(self, app, metrics: Metrics, access_log: bool | None):
        self.app = app
        self.second = self.lines = self.unlogged = 0
        self.access_log = access_log
        self.metrics = metrics

    async def __call__(self, scope, receive, send):
        """Answer a request, and tell of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        notes = scope["notes"] = {}
        status = 0
        started = time.perf_counter()

        async def observed_send(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope["app"].state.closing:
                    message["headers"] = [
                        *message["headers"],
                        (b"connection", b"close"),
                    ]
            await send(message)

        self.metrics.in_progress += 1
        try:
            await self.app(scope, receive, observed_send)
        except ClientDisconnect:
            status = DISCONNECTED
        except Exception:
            if status:  # the answer has begun: the connection has to break
                raise
            logger.exception("a request failed", extra={"fields": dict(notes)})
            failed = _error(
                HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the server's log"
            )
            await failed(scope, receive, observed_send)
        finally:
            self.metrics.in_progress -= 1
            self._tell(scope, notes, status, time.perf_counter() - started)

    def _tell(self, scope, notes, status, seconds):
        protocol, model = notes.get("protocol", "other"), notes.get("model", "")
        self.metrics.requests.labels(protocol, model, status).inc()
        self.metrics.seconds.labels(protocol, model).observe(seconds)
        if images := notes.get("images"):
            self.metrics.images.labels(protocol, model).inc(images)
        if self.access_log is False or not logger.isEnabledFor(logging.INFO):
            return
        path = scope["path"]
        if path.startswith(QUIET) and status < HTTPStatus.BAD_REQUEST:
            return
        if self.access_log is None:
            if self.second != (second := int(time.monotonic())):
                self.second, self.lines = second, 0
            self.lines += 1
            if self.lines > SAMPLED:
                self.unlogged += 1
                return
            if self.unlogged:
                notes["unlogged"], self.unlogged = self.unlogged, 0
        log(
            "request",
            method=scope["method"][:16],
            path=path[:200],
            status=status,
            ms=round(1000 * seconds, 2),
            client=(scope.get("client") or ("",))[0],
            **notes,
        )
