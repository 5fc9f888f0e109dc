"""Beyond one machine: the server's application on Ray Serve.

    serve_on_ray("served", replicas=2)      # kerascnn serve served --ray --replicas 2

Each replica is a process with the whole application: its models, its batches, its
watch over the folder. Ray Serve starts them, on one machine or on the nodes of a
cluster, sends each request to one that has little to do, starts others in the place of
those that die, and scales their number.

What Ray stops itself ends when its requests are answered: no request is lost when
replicas are replaced or their number falls. Of a replica that is killed the requests
in flight are answered by Ray's proxy with 500, and are the client's to repeat.
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
    """Return the server as an application of Ray Serve, for `ray.serve.run`.

    Args:
        folder: as for `kerascnn.serving.http.create_app`. On a cluster every node has
            to see it under the same path: a shared volume.
        replicas: processes; with `most` the fewest.
        most: processes at most; they are added while more than 64 requests at once
            are in each, and taken away, their requests answered, when there are
            fewer. Default: always as many as `replicas`.
        limits: `kerascnn.serving.http.Limits` of each replica.
        cpus: processors that Ray reserves for a replica.
        settings: others of `create_app`: labels, versions, poll.

    Returns:
        A `ray.serve.Application`.

    Raises:
        ModuleNotFoundError: Ray Serve is not installed.
        ValueError: the numbers are out of range, or as `create_app`.
        FileNotFoundError: the folder is not there.
    """
    _require_ray()
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

    if most is None:
        scale = {"num_replicas": replicas}
    else:
        scale = {
            "autoscaling_config": {
                "min_replicas": replicas,
                "max_replicas": most,
                "target_ongoing_requests": TARGET,
            }
        }
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

    Args:
        arguments: folder, and optionally replicas, most, versions and cpus.

    Raises:
        ValueError: folder is missing, another argument is not known or no number.
    """
    kinds = {
        "folder": str,
        "replicas": int,
        "most": int,
        "versions": int,
        "cpus": float,
    }
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
    """Start the server on Ray Serve, and return when it answers.

    Ray is started on this machine, without its dashboard and its reports of usage;
    where RAY_ADDRESS names a cluster, that is used. A second call replaces the
    replicas of the first, one after the other, while the others answer; it cannot
    change host and port.

    Args:
        folder, replicas, most, limits, settings: as for `application`.
        host: address that Ray's HTTP proxy listens at; it checks no passwords.
        port: its port.

    Returns:
        The address, "http://127.0.0.1:8501".

    Raises:
        As `application`, and RuntimeError: Ray could not start the replicas.
    """
    _require_ray()
    app = application(folder, replicas, most, limits=limits, **settings)
    # Ray tells its makers of its use where nobody has said otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    from kerascnn.serving.http import Limits

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(
        http_options={
            "host": host,
            "port": port,
            "request_timeout_s": (limits or Limits()).timeout + 5,
        }
    )
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
    most: int | None = None,
    limits=None,
    announce: Callable[[str], None] | None = None,
    **settings,
) -> None:
    """Serve the models of a folder on Ray Serve until SIGTERM or Ctrl-C.

    Each replica has its own `/metrics`: a request for them is answered by any one.

    Args:
        folder, replicas, host, port, most, limits, settings: as for `start_on_ray`.
        announce: called once with the address when the server answers.

    Raises:
        As `start_on_ray`.
    """
    stop = threading.Event()
    before = {}
    try:
        url = start_on_ray(
            folder, replicas, host, port, most=most, limits=limits, **settings
        )
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


def _require_ray() -> None:
    if package := first_missing(("ray", "fastapi", "starlette", "uvicorn")):
        raise ModuleNotFoundError(
            f'serving on Ray needs {package}: pip install "kerascnn[ray]"'
        )
