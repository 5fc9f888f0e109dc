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
    for package in packages:
        try:
            found = importlib.util.find_spec(package)
        except ValueError:  # it is marked as missing
            found = None
        if found is None:
            return package
    return None


@contextlib.contextmanager
def no_stderr():
    """Close standard error for a while, for C++ too.

    TF_CPP_MIN_LOG_LEVEL does not reach the lines that are written before TensorFlow
    has read it.
    """
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
    found = {"python": platform.python_version(), "backend": backend}
    for package in ("kerascnn", "keras", "numpy", backend):
        found[package] = metadata.version(package)
    return found


@functools.cache
def commit() -> str | None:
    """Return the git commit of the package's source, None where it is installed."""
    source = Path(__file__).resolve().parents[1]
    if not (source / "setup.cfg").exists():
        return None
    try:
        asked = ["git", "-C", source, "describe", "--always", "--abbrev=12", "--dirty"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@functools.cache
def hardware() -> str:
    """Return the device that Keras computes on, in words."""
    import keras

    accelerators = [d for d in keras.distribution.list_devices() if "cpu" not in d]
    if accelerators and keras.backend.backend() == "jax":
        import jax

        kind = jax.devices()[0].device_kind
        return f"{len(accelerators)} x {kind}"
    if accelerators:
        return ", ".join(accelerators)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = match[1].strip() if match else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = cores or os.cpu_count()
    return f"{cores} core{'s' * (cores != 1)} of {model}"


@contextlib.contextmanager
def progress_bar(
    description: str, *, total: int | None, in_bytes: bool = False, enabled: bool = True
) -> Iterator[Callable[..., None]]:
    """Show a progress bar while the block runs.

    Args:
        description: what is under way.
        total: how much there is to do, if it is known.
        in_bytes: whether that is a number of bytes: shows sizes and a speed.
        enabled: False shows nothing; nor is anything shown where stderr is no
            terminal.

    Yields:
        A function (done, total=None) that sets how much is done.
    """
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    amount = (
        (progress.DownloadColumn(), progress.TransferSpeedColumn())
        if in_bytes
        else (progress.MofNCompleteColumn(),)
    )
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *amount,
        progress.TimeRemainingColumn(),
        console=console,
        disable=not (enabled and console.is_terminal),
        speed_estimate_period=120,
    ) as bar:
        task = bar.add_task(description, total=total)

        def advance(done, total=None):
            bar.update(task, completed=done, **({"total": total} if total else {}))

        yield advance
