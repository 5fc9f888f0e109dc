"""The command that serves."""

from pathlib import Path
from typing import Annotated

import typer

from kerascnn.cli.common import app, pairs_of, say


def option(text: str, **more):
    """Return an option with a help text."""
    return typer.Option(help=text, **more)


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="Of one model, or of several.")],
    host: Annotated[
        str, option("Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, option("0 takes any.", min=0, max=65535)] = 8501,
    label: Annotated[
        list[str] | None,
        option("stable=2, or NAME/stable=2 for one model. Repeatable."),
    ] = None,
    versions: Annotated[int, option("Newest versions that are served.", min=1)] = 1,
    batch: Annotated[int, option("Images computed at once.", min=1)] = 128,
    batch_wait: Annotated[
        float, option("Seconds an image waits for others.", min=0)
    ] = 0.0,
    queue: Annotated[int, option("Images that wait; then 503.", min=1)] = 1024,
    timeout: Annotated[float, option("Seconds for a request; then 504.")] = 30.0,
    max_body: Annotated[float, option("MiB of a request; then 413.")] = 32.0,
    max_images: Annotated[int, option("Images of a request; then 413.", min=1)] = 1024,
    max_pixels: Annotated[
        float, option("Million pixels of an encoded image; then 400.")
    ] = 12.5,
    poll: Annotated[float, option("Seconds between looks for new versions.")] = 1.0,
    stop_delay: Annotated[
        float, option("Seconds between SIGTERM and the closed port.", min=0)
    ] = 0.0,
    access_log: Annotated[
        bool | None, option("Log each request, or none; default: 20 a second.")
    ] = None,
    cors: Annotated[
        list[str] | None,
        option("Origin whose pages may ask, https://example.org, or *. Repeatable."),
    ] = None,
    ray: Annotated[bool, option("Serve on Ray Serve, with replicas.")] = False,
    replicas: Annotated[int, option("Servers side by side, with --ray.", min=1)] = 1,
):
    """Serve exported versions over HTTP.

    The protocols are TensorFlow Serving's REST API and /v2, the Open Inference
    Protocol.
    """
    if replicas > 1 and not ray:
        raise ValueError(f"--replicas needs --ray; received --replicas {replicas}")
    if ray and stop_delay:
        raise ValueError(
            "--stop-delay is not for --ray, which has its own; leave it out"
        )
    from kerascnn.serving.http import Limits
    from kerascnn.serving.http import serve as run

    limits = Limits(
        body=int(max_body * 2**20),
        bodies=max(128 * 2**20, int(4 * max_body * 2**20)),
        images=max_images,
        pixels=int(max_pixels * 1e6),
        queue=queue,
        batch=batch,
        batch_wait=batch_wait,
        timeout=timeout,
    )
    labels = {}
    for key, number in pairs_of(label, "label").items():
        if not number.isascii() or not number.isdigit():
            raise ValueError(f"--label takes stable=2; received {key}={number}")
        labels[key] = int(number)

    chosen = {
        "limits": limits,
        "labels": labels,
        "versions": versions,
        "poll": poll,
        "access_log": access_log,
        "cors": cors,
    }
    if ray:
        from kerascnn.serving.ray_serve import serve_on_ray

        serve_on_ray(folder, replicas, host, port, announce=announce, **chosen)
        return

    def tell(url, repository):
        for model in repository.models.values():
            numbers = ", ".join(str(number) for number in sorted(model.versions))
            what = f"version {numbers}" if numbers else "no version that can be loaded"
            say(f"{model.name}: {what}")
        for fault in filter(None, repository.complaints.values()):
            say(f"not served: {fault}")
        if not repository.models and not any(repository.complaints.values()):
            say(f"no versions in {folder} yet; the first is served when it appears")
        announce(url)

    run(folder, host, port, stop_delay=stop_delay, announce=tell, **chosen)


def announce(url: str) -> None:
    """Print the address. Flushed: a program may wait for this line at a pipe."""
    print(f"serving at {url}", flush=True)
