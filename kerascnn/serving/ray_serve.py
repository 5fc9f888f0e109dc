"""Beyond one machine: the server's application on Ray Serve.

    serve_on_ray("served", replicas=2)      # kerascnn serve served --ray --replicas 2

Each replica is a process with the whole application: its models, its batches, its
watch over the folder. Ray Serve starts them, on one machine or on the nodes of a
cluster, sends each request to one that has little to do, replaces those that die, and
scales their number. A replica that Ray stops itself answers its requests first; of one
that is killed, Ray's proxy answers them with 500.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

from kerascnn.environment import first_missing

NAME = "kerascnn"
ONGOING = 256  # requests at once in a replica; its batches are gathered from them
TARGET = 64  # requests at once in a replica, above which the autoscaler adds one


def application(
    folder,
    replicas: int = 1,
    most: int | None = None,
    *,
    limits=None,
    cpus: float = 1.0,
    **settings,
):
    """Return the server as a `ray.serve.Application`, for `ray.serve.run`.

    Args:
        folder: as for `kerascnn.serving.http.create_app`, whose labels, versions and
            poll are `settings`. Every node of a cluster has to see it, under one path.
        replicas: processes; with `most` the fewest.
        most: processes at most; they are added while more than 64 requests at once
            are in each, and taken away, their requests answered, when there are
            fewer. Default: always as many as `replicas`.
        limits: `kerascnn.serving.http.Limits` of each replica.
        cpus: processors that Ray reserves for a replica.

    Raises as `create_app`, and ModuleNotFoundError: Ray Serve is not installed.
    """
    if package := first_missing(("ray", "fastapi", "starlette", "uvicorn")):
        raise ModuleNotFoundError(
            f'serving on Ray needs {package}: pip install "kerascnn[ray]"'
        )
    from ray import serve

    from kerascnn.serving.http import Limits, create_app

    if replicas < 1:
        raise ValueError(f"replicas is 1 or more; received {replicas!r}")
    if most is not None and most < replicas:
        raise ValueError(
            f"most is at least replicas, which is {replicas}; received {most!r}"
        )
    folder = os.path.abspath(folder)
    limits = limits or Limits()
    create_app(folder, limits=limits, **settings)  # what is wrong with it shows here

    def build():
        # In the replica: the models are loaded there when the application starts.
        from kerascnn.serving.http import create_app

        return create_app(folder, limits=limits, **settings)

    scale = {"num_replicas": replicas}
    if most is not None:
        between = {"min_replicas": replicas, "max_replicas": most}
        scale = {"autoscaling_config": {**between, "target_ongoing_requests": TARGET}}
    deployment = serve.deployment(
        serve.ingress(build)(),
        name="server",
        max_ongoing_requests=ONGOING,
        ray_actor_options={"num_cpus": cpus},
        # A replica that is to end answers what it has.
        graceful_shutdown_timeout_s=limits.timeout + 5,
        **scale,
    )
    return deployment.bind()


def build(arguments: dict[str, str]):
    """Return `application` for Ray's own command, which passes texts.

        serve run kerascnn.serving.ray_serve:build folder=/models replicas=2 most=8

    versions and cpus may be given too; ValueError: another is, or the folder is not.
    """
    kinds = {"folder": str, "cpus": float}
    kinds |= dict.fromkeys(("replicas", "most", "versions"), int)
    if "folder" not in arguments or not arguments.keys() <= kinds.keys():
        raise ValueError(
            f"name the folder, and nothing but {', '.join(kinds)}: folder=served "
            f"replicas=2; received {', '.join(arguments) or 'nothing'}"
        )
    return application(**{key: kinds[key](v) for key, v in arguments.items()})


def start_on_ray(
    folder,
    replicas: int = 1,
    host: str = "127.0.0.1",
    port: int = 8501,
    *,
    most: int | None = None,
    limits=None,
    **settings,
) -> str:
    """Start the server on Ray Serve; return its address when it answers.

    Ray is started on this machine; where RAY_ADDRESS names a cluster, that is used. A
    second call replaces the replicas of the first, one after the other, while the
    others answer; it cannot change host and port, where Ray's HTTP proxy listens, which
    checks no passwords. The other arguments and errors are those of `application`.
    """
    app = application(folder, replicas, most, limits=limits, **settings)
    # Ray tells its makers of its use where nobody has said otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    from kerascnn.serving.http import Limits

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    silence = (limits or Limits()).timeout + 5
    serve.start(http_options={"host": host, "port": port, "request_timeout_s": silence})
    serve.run(app, name=NAME, route_prefix="/")
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def stop_on_ray() -> None:
    """Stop what `start_on_ray` started; the requests in flight are answered.

    Other applications of Ray Serve on the same cluster are left alone.
    """
    import ray
    from ray import serve

    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()
    ray.shutdown()


def serve_on_ray(
    folder,
    replicas: int = 1,
    host: str = "127.0.0.1",
    port: int = 8501,
    *,
    announce: Callable[[str], None] | None = None,
    **settings,
) -> None:
    """Serve the models of a folder on Ray Serve until SIGTERM or Ctrl-C.

    Each replica has its own `/metrics`: a request for them is answered by any one.
    `announce` is called once with the address when the server answers; the other
    arguments and errors are those of `start_on_ray`.
    """
    stop = threading.Event()
    before = {}
    try:
        url = start_on_ray(folder, replicas, host, port, **settings)
        # Not earlier: Ray takes SIGTERM when it starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda *_: stop.set())
        if announce:
            announce(url)
        stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            stop_on_ray()
