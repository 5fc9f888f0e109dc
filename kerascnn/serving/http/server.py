"""Run the server as a process: its socket, its signals, its end."""

import asyncio
import contextlib
import socket
import time

import uvicorn

from kerascnn.environment import no_stderr
from kerascnn.serving.http.app import create_app
from kerascnn.serving.http.metrics import log, write_lines
from kerascnn.serving.http.saved_model import tensorflow

KEEP_ALIVE = 75  # seconds that a connection may rest between two requests
HEADERS = 20  # seconds within which the headers of a request have to come
HEAD = 2**16  # bytes that they have, or what surrounds the pieces of a body
DRAINED = 1.0  # seconds in which clients whose connections rest may ask once more
BACKLOG = 2048
CONNECTIONS = 10_000
SPARE = 128  # descriptors for other files than connections


def serve(
    folder,
    host: str = "127.0.0.1",
    port: int = 8501,
    *,
    stop_delay: float = 0.0,
    access_log: bool | None = None,
    announce=None,
    **settings,
) -> None:
    """Serve the models of a folder until SIGTERM or Ctrl-C.

    The port is opened when the models have been loaded. On SIGTERM /v2/health/ready
    says 503 at once; `stop_delay` seconds later no connection is taken any more, the
    requests in flight, and those that come within a second, are answered, and this
    function returns.

    Args:
        folder, access_log, settings: see `create_app`; limits, labels, versions, …
        host: address to listen at; "0.0.0.0" for all of the machine. The server
            checks no passwords: let only those reach it who may use it.
        port: 0 for any that is free.
        stop_delay: seconds in which a load balancer can see that the server is no
            longer ready.
        announce: called once with the address, "http://127.0.0.1:8501", and the
            `Repository`, when the server is about to answer.

    Raises FileNotFoundError, ValueError: see `create_app`; OSError: the address cannot
    be listened at.
    """
    write_lines()
    if not stop_delay >= 0:
        raise ValueError(f"stop_delay is 0 seconds or more; received {stop_delay!r}")
    app = create_app(folder, access_log=access_log, **settings)
    listener = _listen(host, port)
    with no_stderr():
        tensorflow()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(app.state.limits.timeout) + 5,
    )
    config.load()
    config.http_protocol_class = _bounded(config.http_protocol_class, _descriptors())
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    with contextlib.closing(listener):
        Server(config, app, stop_delay, url, announce).run(sockets=[listener])
    log("stopped")


class Server(uvicorn.Server):
    """uvicorn's server, which ends with exit code 0 when it is told to end."""

    def __init__(self, config, app, stop_delay: float, url: str, announce):
        super().__init__(config)
        self.state = app.state
        self.stop_delay = stop_delay
        self.stop_at = None
        self.url = url
        self.announce = announce

    async def startup(self, sockets=None):
        """Load the models, begin to listen, and tell."""
        await super().startup(sockets)
        log("serving", models=sorted(self.state.repository.models))
        if self.announce:
            self.announce(self.url, self.state.repository)

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to stop; called ten times a second."""
        if counter % 10 == 0:
            for connection in list(self.server_state.connections):
                connection.check()
        stop = await super().on_tick(counter)
        return stop and (self.stop_at is None or time.monotonic() >= self.stop_at)

    async def shutdown(self, sockets=None):
        """Take no connection any more, and answer what has been asked."""
        self.state.closing = True
        # A client whose connection rests may be asking just now: closed at once, the
        # connection would be reset.
        for server in self.servers:
            server.close()
        end = time.monotonic() + DRAINED
        while self.server_state.connections and time.monotonic() < end:
            if self.force_exit:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def handle_exit(self, sig, frame) -> None:
        """Begin to stop; at a second signal stop at once.

        uvicorn's own would raise the signal again at the end.
        """
        if self.stop_at is not None:
            self.stop_at = 0.0
            self.force_exit = True
        else:
            self.stop_at = time.monotonic() + self.stop_delay
            self.state.stopping = True
        self.should_exit = True


def _descriptors() -> int:
    """Allow this process what the system lets it open; return how many connections."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft) - SPARE) if soft > 0 else CONNECTIONS


def _bounded(protocol: type, most: int) -> type:
    """Return uvicorn's protocol, h11's or httptools', which closes what only waits."""

    class Bounded(protocol):
        def connection_made(self, transport):
            self.since, self.unread = time.monotonic(), 0
            if len(self.connections) >= most:
                waiting = [c for c in self.connections if c.waits()]
                oldest = min(waiting, key=lambda c: c.since, default=None)
                if oldest is None:
                    transport.abort()
                else:
                    oldest.transport.close()
            super().connection_made(transport)

        def data_received(self, data):
            self.unread += len(data)
            super().data_received(data)
            if self.unread > HEAD and hasattr(protocol, "on_body"):  # h11 counts itself
                self.send_400_response(f"A request's head has at most {HEAD:,} bytes.")

        def on_headers_complete(self):
            self.unread = 0
            super().on_headers_complete()

        def on_body(self, body):
            self.unread = 0
            super().on_body(body)

        def waits(self) -> bool:
            """Tell whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def check(self):
            """Close the connection if a request's headers take too long."""
            now = time.monotonic()
            # Between two requests uvicorn counts the time itself.
            if not self.waits() or self.timeout_keep_alive_task is not None:
                self.since = now
            elif now - self.since > HEADERS:
                self.transport.close()

    return Bounded


def _listen(host: str, port: int) -> socket.socket:
    """Take the address before the models are loaded: it may not be free."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"{host} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(
            f"cannot listen at {host} port {port}: {error}; choose another --port"
        ) from error
    return listener
