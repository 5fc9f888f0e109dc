"""A progress bar with the time left, on stderr, where somebody can see it."""

import contextlib
from collections.abc import Callable, Iterator


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
