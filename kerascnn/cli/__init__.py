"""The `kerascnn` command: it parses, calls one function and renders the answer.

Begin with `commands.py`: all commands but that of `server.py`. `common.py` is what they
share; how errors become one line and an exit code is below.
"""

import codecs
import json
import os
import sys
import traceback

# Both add their commands to `app`; `kerascnn --help` lists them in this order.
from kerascnn.cli import commands, server  # noqa: F401
from kerascnn.cli.common import DEBUG, INTERRUPTED, MODULE, app

# Shown in the help of their command.
EXAMPLES = """\
kerascnn models "vgg*"
kerascnn models --measured
kerascnn summary lecture_cnn
kerascnn summary vgg16 --size 64 --classes 7 --csv
kerascnn compare lecture_cnn dense_mlp vgg19 --plot accuracy.png
kerascnn compare lecture_cnn my_network.keras runs/lecture_cnn-shapes-1
kerascnn record runs/lenet5-cifar10-* --recipe default
kerascnn data import cifar-10-python.tar.gz
kerascnn data download --data-dir ~/tensorflow_datasets
kerascnn train lecture_cnn
kerascnn train resnet20 --data my_photos --epochs 20 --seed 1
kerascnn train my_network.keras --data my_photos --folder runs/mine
kerascnn train --resume runs/mine
kerascnn tune lecture_cnn --trials 20 --epochs 5
kerascnn tune lenet5 --space learning_rate=0.001:0.1:log
kerascnn evaluate runs/mine --plot confusion.png
kerascnn predict runs/mine cat.jpg dog.png
kerascnn predict served/mine/1 cat.jpg
kerascnn predict mine cat.jpg --server http://127.0.0.1:8501
kerascnn explain runs/mine cat.jpg
kerascnn explain runs/mine cat.jpg --what gradcam --target cat
kerascnn lab
kerascnn lab resnet20 cat.jpg --out lab.html
kerascnn tutorial
kerascnn tutorial 7 --notebook
kerascnn quickstart --set epochs=2
kerascnn export runs/mine served/mine
kerascnn export runs/mine served/mine --format onnx
kerascnn versions served/mine
kerascnn rollback served/mine
kerascnn rollback served/mine --to 3
kerascnn prune served/mine --keep 3
kerascnn verify served/mine/2
kerascnn serve served
kerascnn serve served/mine --host 0.0.0.0 --port 8501
""".splitlines()
for command in (*app.registered_commands, *commands.data_app.registered_commands):
    word = f" {command.name or command.callback.__name__} "
    if own := [f"  {line}" for line in EXAMPLES if word in f"{line} "[:24]]:
        command.epilog = "\n".join(["\b", "Examples:", *own])  # \b keeps the lines


def main() -> None:
    """Run the command; wrong use exits with 2, a failure with 1, Ctrl-C with 130."""
    # TensorFlow tells its start on standard error; a user can still ask for it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _open_streams()
    arguments = sys.argv[1:] or ["--help"]
    debug = DEBUG in arguments
    try:
        code = app(_common_first(arguments), standalone_mode=False)
        code = code if isinstance(code, int) else 0
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            print("\ninterrupted", file=sys.stderr)
        sys.stdout.flush()
        sys.exit(code)
    except (BrokenPipeError, SystemExit) as end:  # typer makes the second of the first
        if BrokenPipeError not in (type(end), type(end.__context__)):
            raise
        # The reader of a pipe has seen enough (`kerascnn models | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = _one_line(error)
        if type(error).__name__ == "UnknownNetworkError":
            message += f"; a network of your own needs {MODULE} FILE.py"
        print(f"error: {message}", file=sys.stderr)
        wrong_use = (ValueError, TypeError, FileNotFoundError, FileExistsError)
        code = 2 if isinstance(error, wrong_use) else 1
        sys.exit(getattr(error, "exit_code", code))


def _open_streams() -> None:
    """Give what is closed (`2>&-`) a place: else the next file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115

    def escaped(error):  # as in JSON, which so is whole on any code page
        return json.dumps(error.object[error.start : error.end])[1:-1], error.end

    codecs.register_error("kerascnn", escaped)
    sys.stdout.reconfigure(errors="kerascnn")


def _common_first(arguments: list[str]) -> list[str]:
    """Let the options of every command stand behind the command, too."""
    first, rest = [], []
    words = iter(arguments)
    for word in words:
        if word == DEBUG or word.startswith(f"{MODULE}="):
            first.append(word)
        elif word == MODULE:
            if (file := next(words, None)) is None:
                raise ValueError(
                    f"{MODULE} takes a Python file, such as my_networks.py"
                )
            first += [word, file]
        else:
            rest.append(word)
    return first + rest


def _one_line(error: Exception) -> str:
    # What typer raises for wrong use can say it itself.
    message = getattr(error, "format_message", lambda: str(error))()
    if not message and isinstance(error, MemoryError):
        message = "out of memory; choose a smaller network or batch_size"
    return " ".join((message or repr(error)).split())
