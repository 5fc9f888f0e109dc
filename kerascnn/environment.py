"""What surrounds the package: versions, hardware, extras, the terminal."""

import contextlib
import functools
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path


def first_missing(packages) -> str | None:
    """Return the first package that is not installed; imports none of them."""
    return next((p for p in packages if importlib.util.find_spec(p) is None), None)


@contextlib.contextmanager
def no_stderr():
    """Close standard error for a while, for C++ too: TensorFlow tells its start."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed already (2>&-)
        yield
        return
    if sys.stderr:
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import keras

    backend = keras.backend.backend()
    packages = {p: metadata.version(p) for p in ("kerascnn", "keras", "numpy", backend)}
    return {"python": platform.python_version(), "backend": backend, **packages}


@functools.cache
def commit() -> str | None:
    """Return the git commit of the package's source, None where it is installed."""
    source = Path(__file__).resolve().parents[1]
    if not (source / "setup.cfg").exists():
        return None
    try:
        asked = ["git", "-C", source, "describe", "--always", "--abbrev=12", "--dirty"]
        told = subprocess.check_output(asked, text=True, stderr=subprocess.DEVNULL)
        return told.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def accelerators() -> list[str]:
    """Return the devices beyond the processor that Keras computes on."""
    import keras

    if keras.backend.backend() == "torch":  # which Keras lists no devices of
        devices = [str(keras.ops.zeros(()).device)]
    else:
        devices = keras.distribution.list_devices()
    return [device for device in devices if not device.startswith("cpu")]


@functools.cache
def hardware() -> str:
    """Return the device that Keras computes on, in words."""
    import keras

    if (found := accelerators()) and keras.backend.backend() == "jax":
        import jax

        return f"{len(found)} x {jax.devices()[0].device_kind}"
    if found:
        return ", ".join(found)
    model = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        match = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = match[1].strip() if match else model
    allowed = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if allowed else os.cpu_count()
    return f"{cores} core{'s' * (cores != 1)} of {model}"


def surroundings() -> dict:
    """Return what a run folder says of where it was made."""
    return {"versions": versions(), "hardware": hardware(), "commit": commit()}


def resolve_precision(precision: str) -> str:
    """Return the dtype policy to train in.

    "auto" is mixed_bfloat16 where it is fast: on processors with bfloat16 instructions
    (AVX512-BF16, AMX) and on accelerators; float32 elsewhere.
    """
    if precision != "auto":
        return precision
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    fast = accelerators() or "avx512_bf16" in flags or "amx_bf16" in flags
    return "mixed_bfloat16" if fast else "float32"


@contextlib.contextmanager
def progress_bar(
    description: str, *, total: int | None, in_bytes=False, enabled=True, console=None
) -> Iterator[Callable[..., None]]:
    """Show progress on stderr, if a terminal, for a while.

    Yields a function (done, total=None, description=None). What is printed meanwhile
    stands above the bar, if by the `console`.
    """
    from rich import progress
    from rich.console import Console

    console = console or Console(stderr=True)
    counts = [progress.MofNCompleteColumn()]
    if in_bytes:
        counts = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
    columns = progress.BarColumn(), *counts, progress.TimeRemainingColumn()
    off = not (enabled and console.is_terminal)
    options = {"console": console, "disable": off, "transient": True}
    options["speed_estimate_period"] = 120  # seconds
    with progress.Progress("{task.description}", *columns, **options) as bar:
        task = bar.add_task(description, total=total)

        def advance(done, total=None, description=None):
            told = {"total": total or None, "description": description}
            bar.update(task, completed=done, **told)

        yield advance
