"""The models of a folder: watched, loaded, switched and drained.

Everything here happens in one event loop, except loading and the listing of folders,
which run in a thread. A request holds the version that it asked for while it is
answered; a version that is no longer wanted leaves memory when nobody holds it.
"""

import asyncio
import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kerascnn.serving.http.batching import Batcher
from kerascnn.serving.http.limits import Limits, RequestError, invalid
from kerascnn.serving.http.metrics import Metrics, log
from kerascnn.serving.http.saved_model import Version, load, warm
from kerascnn.serving.http.scan import Found, Stamp, find

REMEMBERED = 50  # versions of a model that have ended, for its status
SLOWEST_RETRY = 60.0  # seconds


@dataclass
class State:
    """How far a version is: START, LOADING, AVAILABLE, UNLOADING or END."""

    name: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass
class Served:
    """A version that answers requests."""

    version: Version
    stamp: Stamp
    batchers: dict[str, Batcher]
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self):
        self.idle.set()


@dataclass
class Model:
    """A model: the versions that answer, and what is known of all of them."""

    name: str
    versions: dict[int, Served] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    failures: dict[tuple[int, Stamp], tuple[int, float]] = field(default_factory=dict)
    complaint: str = ""

    @property
    def newest(self) -> int | None:
        """The version that answers where none is asked for; None if there is none."""
        return max(self.versions, default=None)


class Repository:
    """The models of a folder.

    Args:
        folder: the folder of one model's versions, or a folder of such folders.
        limits: for the queues of the versions.
        metrics: told of loads and batches.
        labels: version numbers by label, for every model that has this version, or
            for one as "model/label"; they come before those of `labels.json`.
        versions: how many of the newest versions of a model are served. Versions with
            a label are served besides.
        poll: seconds between two looks into the folder.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: the folder is a version itself.
    """

    def __init__(
        self,
        folder,
        *,
        limits: Limits,
        metrics: Metrics,
        labels: dict[str, int] | None = None,
        versions: int = 1,
        poll: float = 1.0,
    ):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{self.folder} is not a folder; give the one that holds the versions, "
                "as `kerascnn export` writes them"
            )
        find(self.folder)  # refuses the folder of a version
        self.limits = limits
        self.metrics = metrics
        self.labels = dict(labels or {})
        self.count = versions
        self.poll = poll
        self.models: dict[str, Model] = {}
        self.complaints: dict[str, str] = {}  # by model; "" for the folder itself
        self.ready = False
        self.pool = ThreadPoolExecutor(os.cpu_count() or 2, "kerascnn-compute")
        self.large = ThreadPoolExecutor(1, "kerascnn-large")
        self.loader = ThreadPoolExecutor(1, "kerascnn-load")
        self.tasks: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Load what is there, then watch the folder until `stop`."""
        await self.refresh()
        self.ready = True
        self._keep(self._watch())

    async def stop(self) -> None:
        """Watch no longer; requests in flight are to be answered before."""
        self.ready = False
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.loader.shutdown(wait=False, cancel_futures=True)
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.large.shutdown(wait=False, cancel_futures=True)

    async def refresh(self) -> None:
        """Look into the folder once, and load and unload what has changed."""
        try:
            found = await self._threaded(find, self.folder)
        except (OSError, ValueError) as error:
            # What is served stays: a folder on a network may come back.
            self._complain("", "the folder cannot be read", str(error))
            return
        self._complain("", "", "")
        for name in sorted(found.keys() | self.models.keys()):
            seen = found.get(name) or Found(self.folder / name)
            event = "versions of a format that is not served"
            if seen.unreadable:
                event = "the folder cannot be read"
            self._complain(name, event, seen.unusable)
            if not seen.unreadable:
                await self._reconcile(name, seen)

    def _complain(self, name: str, event: str, fault: str) -> None:
        """Log what cannot be served when it begins, not at every look."""
        if fault and self.complaints.get(name) != fault:
            log(event, level="error", model=name, error=fault)
        self.complaints[name] = fault

    @contextlib.contextmanager
    def hold(
        self, name: str, number: int | None, label: str | None
    ) -> Iterator[Served]:
        """Hold a version for a request.

        Args:
            name: of the model.
            number: of the version; with no number and no label the newest.
            label: of the version.

        Raises:
            RequestError: 404 or, for a label, 400: there is none; TensorFlow
                Serving's words.
        """
        served = self.find(name, number, label)
        served.users += 1
        served.idle.clear()
        try:
            yield served
        finally:
            served.users -= 1
            if not served.users:
                served.idle.set()

    def find(self, name: str, number: int | None, label: str | None) -> Served:
        """Return a version, for this moment only; see `hold`."""
        model = self.models.get(name)
        if label is not None:
            number = model and model.labels.get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        wanted = number
        if model is not None and number is None:
            wanted = model.newest
        if model is None or wanted not in model.versions:
            which = (
                f"Latest({name})" if number is None else f"Specific({name}, {number})"
            )
            raise RequestError(404, f"Servable not found for request: {which}")
        return model.versions[wanted]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.poll)
            try:
                await self.refresh()
            except Exception as error:
                # The watch goes on whatever one look ran into.
                log("a look into the folder failed", level="error", error=repr(error))

    async def _reconcile(self, name: str, found: Found) -> None:
        """Make what is served of a model what the folder asks for."""
        if not found.versions and name not in self.models:
            return
        model = self.models.setdefault(name, Model(name))
        if found.complaint != model.complaint:
            model.complaint = found.complaint
            if found.complaint:
                log(
                    "labels are kept as they were", level="error", error=found.complaint
                )
        labels = model.labels if found.complaint else found.labels
        labels = {**labels, **self._labels_for(name, found)}
        newest = sorted(found.versions)[-self.count :]
        labelled = {number for number in labels.values() if number in found.versions}
        wanted = {*newest, *labelled}
        for number in sorted(wanted):
            path, stamp = found.versions[number]
            served = model.versions.get(number)
            if served is None or served.stamp != stamp:
                await self._load(model, number, path, stamp)
        # A label points only to what can answer.
        model.labels = {k: v for k, v in labels.items() if v in model.versions}
        if wanted and not any(number in model.versions for number in newest):
            wanted.add(model.newest)  # the old one answers until a new one can
        for number in sorted(model.versions.keys() - wanted):
            self._retire(model, number, model.versions.pop(number))
        for number in found.versions.keys() & model.failures.keys():
            if number not in wanted:
                del model.failures[number]
        if not found.versions and not model.versions:
            del self.models[name]

    def _labels_for(self, name: str, found: Found) -> dict[str, int]:
        labels = {}
        for key, number in self.labels.items():
            model, slash, label = key.rpartition("/")
            if number in found.versions and (not slash or model == name):
                labels[label] = number
        return labels

    async def _load(self, model: Model, number: int, path: Path, stamp: Stamp) -> None:
        """Load a version and let it answer; a failure is tried again, ever later."""
        loop = asyncio.get_running_loop()
        tries, due = model.failures.get((number, stamp), (0, 0.0))
        if loop.time() < due:
            return
        replaced = model.versions.get(number)
        if replaced is None:
            model.states[number] = State("LOADING")
        fields = {"model": model.name, "version": number}
        started = loop.time()
        try:
            version, requests = await loop.run_in_executor(
                self.loader, _load_and_warm, path, number
            )
        except Exception as error:  # of any kind: the files are the user's
            tries += 1
            retry = min(2.0**tries, SLOWEST_RETRY)
            model.failures = {(number, stamp): (tries, loop.time() + retry)} | {
                key: value for key, value in model.failures.items() if key[0] != number
            }
            told = " ".join(str(error).split())[:500] or type(error).__name__
            if replaced is None:
                model.states[number] = State("END", _code(error), told)
            self.metrics.load_failures.labels(model.name).inc()
            log("a version cannot be loaded", level="error", error=told, **fields)
            return
        seconds = loop.time() - started
        model.failures = {k: v for k, v in model.failures.items() if k[0] != number}
        observe = self.metrics.batch_images.labels(model.name).observe
        batchers = {
            name: Batcher(
                signature,
                self.pool,
                self.limits,
                observe,
                large=Batcher(signature, self.large, self.limits, observe),
            )
            for name, signature in version.signatures.items()
        }
        model.versions[number] = Served(version, stamp, batchers)
        model.states[number] = State("AVAILABLE")
        self.metrics.load_seconds.labels(model.name).set(seconds)
        log("loaded", **fields, seconds=round(seconds, 3), warm_up_requests=requests)
        if replaced is not None:
            self._retire(model, number, replaced)

    def _retire(self, model: Model, number: int, served: Served) -> None:
        """Unload a version when its last request is answered."""
        state = None
        if number not in model.versions:
            state = model.states[number] = State("UNLOADING")
        self._keep(self._drain(model, number, served, state))

    async def _drain(self, model, number, served: Served, state: State | None) -> None:
        await served.idle.wait()
        if state is not None and model.states.get(number) is state:
            state.name = "END"
            ended = [n for n, s in sorted(model.states.items()) if s.name == "END"]
            for old in ended[:-REMEMBERED]:
                del model.states[old]
        log("unloaded", model=model.name, version=number)
        del served
        # TensorFlow's objects refer to each other in circles.
        await self._threaded(gc.collect)

    def _keep(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _threaded(self, function: Callable, *arguments):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.loader, function, *arguments)


def _load_and_warm(path: Path, number: int) -> tuple[Version, int]:
    version = load(path, number)
    return version, warm(version)


def _code(error: Exception) -> str:
    """Return the name of TensorFlow's code for an error."""
    if isinstance(error, FileNotFoundError):
        return "NOT_FOUND"
    if isinstance(error, ValueError):
        return "INVALID_ARGUMENT"
    from tensorflow import errors

    if isinstance(error, errors.OpError):
        for name in dir(errors):
            if name.isupper() and getattr(errors, name) == error.error_code:
                return name
    return "UNKNOWN"
