"""The page for people at `/`, and the two answers that it needs besides the protocols.

    GET /                         the page, all of it from this server
    GET /page/models              {"models": [{"name": …}, …]}: the newest version
                                  of each, as `kerascnn.Client.models` tells
    GET /page/samples             {"samples": ["arrow", …]}
    GET /page/samples/arrow.png   an image of the built-in data, 32x32

The protocols have no list of models and no names of classes, which is why
`kerascnn.Client` asks for `/page/models` too.
"""

import functools
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from kerascnn.serving.formats import labels_of

FOLDER = Path(__file__).with_suffix("")
# A stream of random numbers of its own: the training images are drawn from 0, the test
# images from 1.
SAMPLES_SEED = (0, 2)
# Whatever a label or a file is called, the page runs nothing but its own script.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@functools.cache
def samples() -> dict[str, bytes]:
    """Return an image of each class of the built-in data as a PNG file, by label."""
    from kerascnn.data.shapes import LABELS, generate
    from kerascnn.serving.verification import png

    images, classes = generate(len(LABELS), seed=SAMPLES_SEED)
    return {LABELS[classes[n]]: png(images[n]) for n in classes.argsort()}


def _file(request: Request) -> Response:
    name = request.scope["path"].rpartition("/")[2] or "index.html"
    kind = {"html": "html", "css": "css", "js": "javascript"}[name.partition(".")[2]]
    return FileResponse(FOLDER / name, media_type=f"text/{kind}", headers=HEADERS)


async def _models(request: Request) -> Response:
    # Not in a thread: the repository changes in this one.
    found = []
    for name, model in sorted(request.app.state.repository.models.items()):
        if not model.versions:
            continue
        version = model.versions[max(model.versions)].version
        signature = version.signatures.get("serving_default")
        image = signature and signature.inputs.get("image")
        if not image or image.shape is None or len(image.shape) != 4:
            continue
        try:
            labels = labels_of(version.path)
        except ValueError:  # it was exported elsewhere
            labels = []
        found.append(
            {
                "name": name,
                "version": version.number,
                "labels": labels,
                "input": list(image.shape[1:]),
                "files": "serve_bytes" in version.signatures,
            }
        )
    return JSONResponse({"models": found}, headers={"Cache-Control": "no-store"})


def _samples(request: Request) -> Response:
    return JSONResponse({"samples": list(samples())}, headers=HEADERS)


def _sample(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in samples():
        told = f"there is no sample {name!r}; there are {', '.join(samples())}"
        return JSONResponse({"error": told}, 404)
    return Response(samples()[name], media_type="image/png", headers=HEADERS)


routes = [
    *(Route(path, _file) for path in ("/", "/page/style.css", "/page/page.js")),
    Route("/page/models", _models),
    Route("/page/samples", _samples),
    Route("/page/samples/{name}.png", _sample),
]
