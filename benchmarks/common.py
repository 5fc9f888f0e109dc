"""What the benchmarks share: contenders that take turns, tables, the machine.

Machines are shared and noisy, so only ratios within one run mean something. Each
contender lives in a process of its own (two frameworks in one process share threads
and memory), prepares itself once, and then the contenders take turns, round by
round: what disturbs the machine disturbs all of them alike. The medians over the
rounds are compared.
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


@dataclass
class Contender:
    """A process that does the same piece of work whenever it is told to.

    Attributes:
        name: shown in the table.
        command: arguments for this Python, such as ["training_worker.py", "keras"].
        environment: variables that it needs, such as KERAS_BACKEND.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


class AbsentError(Exception):
    """A peer is not installed, or does not run here; says which and why."""


def work(prepare: Callable[[], Callable[[], dict]]) -> None:
    """Be a contender: prepare, say so, then do the work at each line of stdin.

    Args:
        prepare: loads and warms up; returns the work, a function that returns what it
            measured, such as {"images": 12800, "seconds": 1.9}.
    """
    # The results go out on a copy of stdout: what libraries print there goes to stderr.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(value: dict) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    try:
        measure = prepare()
    except (ImportError, AbsentError) as error:
        say({"absent": str(error)})
        return
    say({"ready": True})
    for _ in sys.stdin:
        say(measure())


def take_turns(
    contenders: list[Contender], rounds: int, show: Callable[[str], None] = print
) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Let contenders work in turns.

    Args:
        contenders: who takes part.
        rounds: how often each works, after a first time that is not counted.
        show: called with a line of progress.

    Returns:
        What each measured, a dictionary a round; and of those that are absent, why.
    """
    found: dict[str, list[dict]] = {}
    absent: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for contender in contenders:
            process = stack.enter_context(_process(contender))
            answer = _answer(process, contender.name)
            if "absent" in answer:
                absent[contender.name] = answer["absent"]
                show(f"{contender.name}: not here ({answer['absent']})")
            else:
                running[contender.name] = process
                show(f"{contender.name}: ready")
        for number in range(rounds + 1):
            for name, process in running.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                measured = _answer(process, name)
                if number:
                    found.setdefault(name, []).append(measured)
            show(f"round {number} of {rounds}")
    return found, absent


@contextlib.contextmanager
def _process(contender: Contender) -> Iterator[subprocess.Popen]:
    script, *arguments = contender.command
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if "DEBUG" not in os.environ else None,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **contender.environment},
    )
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answer(process: subprocess.Popen, name: str) -> dict:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(
            f"{name} ended with exit code {process.wait()}; DEBUG=1 shows its messages"
        )
    return json.loads(line)


def median_rate(rounds: list[dict]) -> float:
    """Return the median over the rounds of images a second."""
    return statistics.median(r["images"] / r["seconds"] for r in rounds)


def machine() -> dict:
    """Describe the machine and the versions that a result was measured with."""
    from importlib import metadata

    from kerascnn.cli.common import load_keras

    load_keras()  # without what TensorFlow tells of its start
    from kerascnn.environment import hardware

    versions = {}
    for name in ("keras", "tensorflow", "jax", "torch", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "hardware": hardware(),
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def write(
    name: str, title: str, tables: list, facts: dict, plot=None, *, elsewhere=False
) -> None:
    """Write a result as Markdown, JSON and, with `plot`, as a picture.

    Args:
        name: of the files in `benchmarks/results`.
        title: heading of the page.
        tables: (heading, rows) pairs, a row a dictionary from column to text.
        facts: everything that was measured.
        plot: function that returns a matplotlib figure.
        elsewhere: the rows say where each was measured; it was not here and now.
    """
    RESULTS.mkdir(exist_ok=True)
    facts = facts if elsewhere else {"machine": machine(), **facts}
    lines = [f"# {title}"]
    if not elsewhere:
        here = facts["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in here["versions"].items())
        lines += ["", f"{here['date']}, {here['hardware']}; {versions}."]
    for heading, rows in tables:
        lines += ["", f"## {heading}", "", *markdown(rows)]
    if plot:
        plot().savefig(RESULTS / f"{name}.png", dpi=150)
        lines += ["", f"![{title}]({name}.png)"]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(
        json.dumps(facts, indent=1) + "\n", encoding="utf-8"
    )
    print("\n".join(lines))
    print(f"\nwritten: {RESULTS / name}.md, .json{', .png' if plot else ''}")


def markdown(rows: list[dict]) -> list[str]:
    """Return rows as the lines of a Markdown table; numbers stand to the right."""
    if not rows:
        return ["(nothing was measured)"]
    columns = list(rows[0])
    lines = [
        "| " + " | ".join(columns) + " |",
        "| " + " | ".join([":--", *["--:"] * (len(columns) - 1)]) + " |",
    ]
    return lines + ["| " + " | ".join(str(r[c]) for c in columns) + " |" for r in rows]
