"""The models of a folder: found, loaded, switched and drained.

Everything here happens in one event loop, except loading and the listing of folders,
which run in a thread. A request holds the version that it asked for while it is
answered; a version that is no longer wanted leaves memory when nobody holds it.
"""

import asyncio
import contextlib
import gc
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kerascnn.serving.formats import format_of
from kerascnn.serving.http.batching import Batcher
from kerascnn.serving.http.limits import Limits, RequestError, invalid
from kerascnn.serving.http.metrics import Metrics, log
from kerascnn.serving.http.saved_model import LoadedVersion, load, warm
from kerascnn.serving.publish import numbered
from kerascnn.serving.versioning import LABELS

REMEMBERED = 50  # versions of a model that have ended, for its status
SLOWEST_RETRY = 60.0  # seconds
LABEL = re.compile("[A-Za-z0-9_]+")
LABELS_WITHIN = 2**20  # bytes

# Changes when a version is replaced under its number, or a file is added to it. The
# inode alone does not (it is used again), nor does the time of a copied file.
Stamp = tuple[int, int, int, int]


@dataclass
class Found:
    """The folder of one model as it is now."""

    path: Path
    versions: dict[int, tuple[Path, Stamp]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    complaint: str = ""  # about labels.json
    unreadable: bool = False  # the folder itself, for now
    unusable: str = ""  # why it has no version that can be served, where it is known


def find(folder: Path) -> dict[str, Found]:
    """Return the models of a folder, by name.

    A folder whose children are numbers is one model, of the folder's name, unless
    these are models themselves. Otherwise each child that has such children is one. A
    version counts when its `saved_model.pb` is there; other children are passed over.
    OSError: the folder cannot be read; ValueError: it is a version itself.
    """
    children = sorted(os.listdir(folder))
    if "saved_model.pb" in children:
        raise ValueError(
            f"{folder} is one version of a model; give the folder above it"
        )
    one = _look(folder)
    models = {}
    for name in children:
        if name.startswith("."):
            continue
        try:
            if (folder / name).is_dir():
                found = _look(folder / name)
                if found.versions or found.unusable:
                    models[name] = found
        except OSError as error:  # such as lost+found
            models[name] = Found(folder / name, unreadable=True, unusable=str(error))
    numbers = [path.name for _, path in numbered(folder)]
    # A model's name may be a number: "2024", with its versions inside.
    inside = any(models[name].versions for name in numbers if name in models)
    if one.versions or (numbers and not inside):
        return {folder.resolve().name: one}
    return models


def _look(path: Path) -> Found:
    found = Found(path)
    for number, version in numbered(path):
        try:
            inside = os.stat(version / "saved_model.pb")
            around = os.stat(version)
        except OSError:  # not a version yet, or not one of this format
            if other := format_of(version):
                found.unusable = (
                    f"{version} is of the format {other.name}; served are "
                    "SavedModels, which `kerascnn export` writes without --format"
                )
            continue
        times = (around.st_ctime_ns, inside.st_mtime_ns)
        stamp = (around.st_ino, *times, inside.st_size)
        found.versions[number] = (version, stamp)
    if found.versions:
        found.unusable = ""
    file = path / LABELS
    try:
        if file.stat().st_size > LABELS_WITHIN:
            raise ValueError(f"a file of labels has at most {LABELS_WITHIN} bytes")
        labels = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(labels, dict):
            raise ValueError('expected an object, {"stable": 2}')
        for label, number in labels.items():
            check_label(label, number)
        found.labels = labels
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        found.complaint = f"{file}: {error}"
    return found


def check_label(label: str, number) -> None:
    """Raise ValueError unless a label is a word, and its version a number."""
    if not LABEL.fullmatch(label):
        raise ValueError(f"a label has letters, digits and _; received {label!r}")
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(
            f"the label {label!r} needs the number of a version; received {number!r}"
        )


@dataclass
class State:
    """How far a version is: START, LOADING, AVAILABLE, UNLOADING or END."""

    name: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass
class Served:
    """A version that answers requests."""

    version: LoadedVersion
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


class Repository:
    """The models of a folder; for arguments and errors see `create_app`."""

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
            told = "is not a folder; give the one that holds the versions, as `kerascnn"
            raise FileNotFoundError(f"{self.folder} {told} export` writes them")
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
        for pool in (self.loader, self.pool, self.large):
            pool.shutdown(wait=False, cancel_futures=True)

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
    def hold(self, name: str, number: int | None, label: str | None):
        """Hold a version while a request is answered; see `find`."""
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
        """Return a version, the newest without number and label, for this moment only.

        RequestError, 404 or for a label 400, if there is none.
        """
        model = self.models.get(name)
        if label is not None:
            number = model and model.labels.get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        wanted = number
        if model is not None and number is None:
            wanted = max(model.versions, default=None)
        if model is None or wanted not in model.versions:
            which = f"Specific({name}, {number})" if number is not None else ""
            which = which or f"Latest({name})"
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
        if found.complaint and found.complaint != model.complaint:
            log("labels are kept as they were", level="error", error=found.complaint)
        model.complaint = found.complaint
        labels = dict(model.labels if found.complaint else found.labels)
        for key, number in self.labels.items():
            of, slash, label = key.rpartition("/")
            if number in found.versions and (not slash or of == name):
                labels[label] = number
        newest = sorted(found.versions)[-self.count :]
        wanted = {*newest, *(n for n in labels.values() if n in found.versions)}
        for number in sorted(wanted):
            path, stamp = found.versions[number]
            served = model.versions.get(number)
            if served is None or served.stamp != stamp:
                await self._load(model, number, path, stamp)
        # A label points only to what can answer.
        model.labels = {k: v for k, v in labels.items() if v in model.versions}
        if wanted and not any(number in model.versions for number in newest):
            # The old one answers until a new one can.
            wanted.add(max(model.versions, default=None))
        for number in sorted(model.versions.keys() - wanted):
            self._keep(self._drain(model, number, model.versions.pop(number)))
        model.failures = {k: v for k, v in model.failures.items() if k[0] in wanted}
        if not found.versions and not model.versions:
            del self.models[name]

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
        others = {k: v for k, v in model.failures.items() if k[0] != number}
        started = loop.time()
        try:
            version = await self._threaded(load, path, number)
            requests = await self._threaded(warm, version)
        except Exception as error:  # of any kind: the files are the user's
            retry = min(2.0 ** (tries + 1), SLOWEST_RETRY)
            failure = (tries + 1, loop.time() + retry)
            model.failures = {(number, stamp): failure, **others}
            told = " ".join(str(error).split())[:500] or type(error).__name__
            if replaced is None:
                model.states[number] = State("END", _code(error), told)
            self.metrics.load_failures.labels(model.name).inc()
            log("a version cannot be loaded", level="error", error=told, **fields)
            return
        seconds = loop.time() - started
        model.failures = others
        observe = self.metrics.batch_images.labels(model.name).observe
        batchers = {}
        for name, signature in version.signatures.items():
            large = Batcher(signature, self.large, self.limits, observe)
            batchers[name] = Batcher(signature, self.pool, self.limits, observe, large)
        model.versions[number] = Served(version, stamp, batchers)
        model.states[number] = State("AVAILABLE")
        self.metrics.load_seconds.labels(model.name).set(seconds)
        log("loaded", **fields, seconds=round(seconds, 3), warm_up_requests=requests)
        if replaced is not None:
            self._keep(self._drain(model, number, replaced))

    async def _drain(self, model: Model, number: int, served: Served) -> None:
        """Unload a version when its last request is answered."""
        state = None
        if number not in model.versions:
            state = model.states[number] = State("UNLOADING")
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
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _threaded(self, function: Callable, *arguments):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.loader, function, *arguments)


def _code(error: Exception) -> str:
    """Return TensorFlow's code for an error: of its NotFoundError "NOT_FOUND"."""
    if isinstance(error, FileNotFoundError):
        return "NOT_FOUND"
    if isinstance(error, ValueError):
        return "INVALID_ARGUMENT"
    words = re.findall("[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))
    return "_".join(words).upper() if hasattr(error, "error_code") else "UNKNOWN"
