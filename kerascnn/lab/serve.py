"""The page answered by Python on this machine: any Keras model, cells by `cell_at`.

GET /, POST /run: pixels to all values; GET /cell: a value of a run, taken apart.
"""

import itertools
import socket
from threading import Lock

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from kerascnn.explain.cell import cell_at
from kerascnn.explain.receptive_field import region
from kerascnn.explain.recording import prepared, record
from kerascnn.lab.pack import pack, page
from kerascnn.training.run import Network, open_network


def create_app(source, image=None):
    """Make the application that answers the page of a network, as `pack` takes it."""
    network = source if isinstance(source, Network) else open_network(source)
    data, arrays = pack(network, image, served=True)
    text, shape, model = page(data, arrays), data["shape"], network.model
    size = int(np.prod(shape))
    runs, numbers, lock = {}, itertools.count(1), Lock()
    hosts = ["127.0.0.1", "localhost"]

    def answers(pixels, brief):
        given = np.frombuffer(pixels, np.uint8).reshape(shape)
        with lock:
            seen = record(model, prepared(model, given))
            wanted = [data["answer"]] if brief else range(len(seen.calls))
            content = b"".join(seen.values(n)[0].tobytes() for n in wanted)
            number = next(numbers)
            if not brief:
                runs[number] = seen
            for old in list(runs)[:-4]:  # the cells of those kept can be asked for
                del runs[old]
        return Response(content, headers={"run": str(number)})

    async def run(request):
        own = request.headers.get("origin") in (None, str(request.base_url)[:-1])
        if not own or request.headers.get("content-length") != str(size):
            return Response(f"the page itself may send {size} bytes, {shape}", 400)
        brief = "brief" in request.query_params  # the answer alone
        return await run_in_threadpool(answers, await request.body(), brief)

    def cell(request):
        try:
            number, call = (int(request.query_params[k]) for k in ("run", "call"))
            place = [int(p) for p in request.query_params["place"].split(",")]
            told = taken_apart(runs[number], call, place)
        except (KeyError, IndexError, ValueError):
            return Response("no such run, call or place: run the image again", 404)
        if not np.isfinite(told.get("total", 0)):  # which JSON cannot hold
            return Response(f"the sum at {place} is {told['total']}", 422)
        return JSONResponse(told)

    return Starlette(
        routes=[
            Route("/", lambda _: HTMLResponse(text)),
            Route("/run", run, methods=["POST"]),
            Route("/cell", cell),
        ],
        # A page of another name that resolves to this machine is not answered.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


def taken_apart(seen, position: int, place) -> dict:
    """Return the sum behind a value as the page shows it, or its region alone."""
    row, column, _ = place
    try:
        cell = cell_at(seen, position, place)
    except (ValueError, RuntimeError):  # a layer that does more than its filters say
        where = region(seen, position, row, column)
        return {"region": where and vars(where)}
    names = ("rows", "columns", "channels", "bias", "activation", "total", "value")
    found = {name: getattr(cell, name) for name in names}
    found |= {n: getattr(cell, n).tolist() for n in ("patch", "filter", "inside")}
    return found | {"region": cell.region and vars(cell.region)}


def serve(source, image=None, *, show) -> None:
    """Answer the page on a free port of 127.0.0.1, whose address `show` gets."""
    app = create_app(source, image)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        show(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning")
        uvicorn.Server(config).run(sockets=[listener])
