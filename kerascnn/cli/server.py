"""The command that serves."""

from pathlib import Path
from typing import Annotated

from typer import Option

from kerascnn.cli.common import app, argument, option, pairs_of


@app.command()
def serve(
    folder: Annotated[Path, argument("Of one model, or of several.")],
    host: Annotated[
        str, Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: int = option(8501, "0 takes any.", min=0, max=65535),
    label: list[str] = option(
        [], "stable=2, or NAME/stable=2 for one model. Repeatable."
    ),
    versions: int = option(1, "Newest versions that are served.", min=1),
    batch: int = option(128, "Images computed at once.", min=1),
    batch_wait: float = option(0.0, "Seconds an image waits for others.", min=0),
    queue: int = option(1024, "Images that wait; then 503.", min=1),
    timeout: float = option(30.0, "Seconds for a request; then 504."),
    max_body: float = option(32.0, "MiB of a request; then 413."),
    max_images: int = option(1024, "Images of a request; then 413.", min=1),
    max_pixels: float = option(12.5, "Million pixels of an encoded image; then 400."),
    poll: float = option(1.0, "Seconds between looks for new versions."),
    stop_delay: float = option(
        0.0, "Seconds between SIGTERM and the closed port.", min=0
    ),
    access_log: bool | None = option(
        None, "Log each request, or none; default: 20 a second."
    ),
    cors: list[str] = option(
        [], "Origin whose pages may ask, https://example.org, or *. Repeatable."
    ),
    ray: bool = option(False, "Serve on Ray Serve, with replicas."),
    replicas: int = option(1, "Servers side by side, with --ray.", min=1),
):
    """Serve exported versions over HTTP.

    The protocols are TensorFlow Serving's REST API and /v2, the Open Inference
    Protocol.
    """
    if replicas > 1 and not ray:
        raise ValueError(f"--replicas needs --ray; received --replicas {replicas}")
    if ray and stop_delay:
        raise ValueError("--stop-delay is not for --ray, which has one; leave it out")
    from kerascnn.serving.http import Limits
    from kerascnn.serving.http import serve as run

    bodies = max(128 * 2**20, int(4 * max_body * 2**20))
    most = {"body": int(max_body * 2**20), "bodies": bodies, "images": max_images}
    most |= {"pixels": int(max_pixels * 1e6), "queue": queue, "batch": batch}
    limits = Limits(**most, batch_wait=batch_wait, timeout=timeout)
    labels = {}
    for key, number in pairs_of(label, "label").items():
        if not number.isascii() or not number.isdigit():
            raise ValueError(f"--label takes stable=2; received {key}={number}")
        labels[key] = int(number)

    def announce(url, repository=None):
        if repository:  # with Ray each replica has its own
            lines, none = [], "no version that can be loaded"
            for model in repository.models.values():
                numbers = ", ".join(map(str, sorted(model.versions)))
                what = f"version {numbers}" if numbers else none
                lines.append(f"{model.name}: {what}")
            faults = filter(None, repository.complaints.values())
            lines += [f"not served: {fault}" for fault in faults]
            none = f"no versions in {folder} yet; the first is served when it appears"
            print("\n".join(lines or [none]))
        # Flushed: a program may wait for this line at a pipe.
        print(f"serving at {url}", flush=True)

    chosen = {"limits": limits, "labels": labels, "versions": versions, "poll": poll}
    chosen |= {"access_log": access_log, "cors": cors, "announce": announce}
    if ray:
        from kerascnn.serving.ray_serve import serve_on_ray

        serve_on_ray(folder, replicas, host, port, **chosen)
    else:
        run(folder, host, port, stop_delay=stop_delay, **chosen)
