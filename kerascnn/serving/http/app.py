"""The application: its routes, its state, and what is done around each request."""

import contextlib
import time

from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from kerascnn.serving.http import openinference, page, rest
from kerascnn.serving.http.limits import Bodies, Limits, RequestError, in_ascii
from kerascnn.serving.http.metrics import Metrics, logger
from kerascnn.serving.http.repository import Repository, check_label

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
    limits, metrics = limits or Limits(), Metrics()
    chosen = {"labels": labels, "versions": versions, "poll": poll}
    repository = Repository(folder, limits=limits, metrics=metrics, **chosen)
    bodies = Bodies(limits)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        await repository.start()
        try:
            yield
        finally:
            await repository.stop()
            bodies.close()

    async def counted(request: Request) -> Response:
        text = metrics.render(repository.models)
        return Response(text, headers={"content-type": metrics.content_type})

    middleware = [Middleware(Observed, metrics=metrics, access_log=access_log)]
    if cors:
        allowed = {"allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        allowed |= {"allow_origins": cors, "expose_headers": [openinference.HEADER]}
        middleware.append(Middleware(CORSMiddleware, **allowed))
    app = Starlette(
        routes=[
            *rest.routes,
            *openinference.routes,
            Route("/metrics", counted, methods=["GET"]),
            Route("/monitoring/prometheus/metrics", counted, methods=["GET"]),
            *page.routes,
        ],
        middleware=middleware,
        exception_handlers={RequestError: _refuse, HTTPException: _refuse},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    parts = {"repository": repository, "limits": limits, "metrics": metrics}
    app.state = State({**parts, "bodies": bodies, "stopping": False, "closing": False})
    return app


async def _refuse(request: Request, error: RequestError | HTTPException) -> Response:
    if isinstance(error, HTTPException):
        return in_ascii({"error": error.detail}, error.status_code, error.headers)
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else None
    return in_ascii({"error": error.message}, error.status, headers)


class Observed:
    """Middleware: counts and logs each request, and answers what fails with 500.

    What a handler puts into `scope["notes"]` (model, images) goes into the log and the
    metrics. Neither bodies nor messages of errors are logged: both may
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
        word = scope["path"].strip("/").partition("/")[0].lower()
        notes = scope["notes"] = {"protocol": word} if word in ("v1", "v2") else {}
        status = 0
        started = time.perf_counter()

        async def observed_send(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope["app"].state.closing:
                    last = (b"connection", b"close")
                    message["headers"] = [*message["headers"], last]
            await send(message)

        metrics = self.metrics
        metrics.in_progress.inc()
        try:
            await self.app(scope, receive, observed_send)
        except ClientDisconnect:
            status = DISCONNECTED
        except Exception:
            if status:  # the answer has begun: the connection has to break
                raise
            logger.exception("a request failed", extra={"fields": dict(notes)})
            told = {"error": "internal error; see the server's log"}
            await in_ascii(told, 500)(scope, receive, observed_send)
        finally:
            seconds = time.perf_counter() - started
            protocol, model = notes.get("protocol", "other"), notes.get("model", "")
            metrics.in_progress.dec()
            metrics.requests.labels(protocol, model, status).inc()
            metrics.seconds.labels(protocol, model).observe(seconds)
            if images := notes.get("images"):
                metrics.images.labels(protocol, model).inc(images)
            quiet = status < 400 and scope["path"].startswith(QUIET)
            if self.access_log is None and not quiet:
                if self.second != (second := int(time.monotonic())):
                    self.second, self.lines = second, 0
                self.lines += 1
                quiet = self.lines > SAMPLED
                self.unlogged += quiet
            if self.access_log is not False and not quiet:
                if self.unlogged:
                    notes["unlogged"], self.unlogged = self.unlogged, 0
                fields = {
                    "method": scope["method"][:16],
                    "path": scope["path"][:200],
                    "status": status,
                    "ms": round(1000 * seconds, 2),
                    "client": (scope.get("client") or ("",))[0],
                    **notes,
                }
                logger.info("request", extra={"fields": fields})
