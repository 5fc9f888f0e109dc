"""The `kerascnn` command: it parses, calls one function and renders the answer.

`common.py` has what the commands share; each other module adds a few. Begin with
`networks.py`; how errors become one line and an exit code is below.
"""

import os
import sys
import traceback

# Each module adds its commands to `app`; `kerascnn --help` lists them in this order.
# isort: off
from kerascnn.cli import networks, data, training, teaching  # noqa: F401
from kerascnn.cli import serving, server  # noqa: F401

# isort: on
from kerascnn.cli.common import DEBUG, INTERRUPTED, app


def main() -> None:
    """Run the command; wrong use exits with 2, a failure with 1, Ctrl-C with 130."""
    # TensorFlow tells its start on standard error; a user can still ask for it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = sys.argv[1:]
    debug = DEBUG in arguments
    if debug:
        arguments.remove(DEBUG)
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
        code = code if isinstance(code, int) else 0
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            print("\ninterrupted", file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`kerascnn models | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(_exit_code(error))


def _one_line(error: Exception) -> str:
    # What typer raises for wrong use can say it itself.
    message = getattr(error, "format_message", lambda: str(error))()
    if not message and isinstance(error, MemoryError):
        message = "out of memory; choose a smaller network or batch_size"
    return " ".join((message or repr(error)).split())


def _exit_code(error: Exception) -> int:
    if hasattr(error, "exit_code"):
        return error.exit_code
    wrong_use = (ValueError, TypeError, FileNotFoundError, FileExistsError)
    return 2 if isinstance(error, wrong_use) else 1
