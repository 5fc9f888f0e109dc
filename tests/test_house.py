"""The house: who imports whom, and what stays unimported."""

import ast
import configparser
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The floor of each module; a package's floor holds for all that is in it.
FLOORS = {
    "kerascnn.cli": 4,
    "kerascnn.notebooks": 4,
    "kerascnn.quickstart": 4,
    "kerascnn.comparison": 3,
    "kerascnn.explain": 3,
    "kerascnn.lab": 3,
    "kerascnn.record": 3,
    "kerascnn.serving": 3,
    "kerascnn.tuning": 3,
    "kerascnn.twin": 3,
    "kerascnn.training": 2,
    "kerascnn.data": 1,
    "kerascnn.summary": 1,
    "kerascnn.plotting": 1,
    "kerascnn.graph": 1,
    "kerascnn.heads": 1,
    "kerascnn.prediction": 1,
    "kerascnn.costs": 1,
    "kerascnn.receptive_field": 1,
    "zoo": 1,
    "kerascnn.arithmetic": 0,
    "kerascnn.environment": 0,
    "kerascnn.statistics": 0,
    "kerascnn.tables": 0,
    "zoo.layers": 0,
}
# The public faces import everything, lazily, by name.
FACES = {"kerascnn", "kerascnn.__main__"}


def floor(name):
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (found := FLOORS.get(".".join(parts[:length]))) is not None:
            return found
    return None


def modules():
    for folder in ("kerascnn", "zoo"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imports(path):
    """Every name that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_floor():
    lost = [n for n, _ in modules() if floor(n) is None and n not in FACES]
    assert lost == []


def test_nothing_imports_upward():
    upward = [
        f"{name} (floor {floor(name)}) imports {other} (floor {floor(other)})"
        for name, path in modules()
        if name not in FACES
        for other in imports(path)
        if floor(other) is not None and floor(other) > floor(name)
    ]
    assert upward == []


def test_tensorflow_is_imported_only_where_it_is_the_point():
    users = {
        name
        for name, path in modules()
        for other in imports(path)
        if other.split(".")[0] in ("tensorflow", "tensorflow_datasets")
    }
    # Several devices of TensorFlow are its own distribution strategy, its fused
    # kernels are in no other backend, and XLA has to be asked for.
    own = tuple(
        f"kerascnn.training.{n}" for n in ("fused_layers", "optimizers", "strategy")
    )
    allowed = ("kerascnn.data", "kerascnn.serving", *own, "zoo.layers.compiling")
    assert [n for n in sorted(users) if not n.startswith(allowed)] == []


def test_the_library_never_sets_the_backend():
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign):
                target = ast.unparse(node.targets[0])
                assert target != "os.environ['KERAS_BACKEND']", name


@pytest.mark.parametrize(
    "code",
    [
        "import kerascnn; kerascnn.models('vgg*'); dir(kerascnn)",
        "import kerascnn; kerascnn.card('lecture_cnn').trainable",
        "import kerascnn; print(kerascnn.compare('lecture_cnn', 'dense_mlp'))",
        "import sys; sys.argv = ['kerascnn', 'models']; "
        "from kerascnn import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass",
        "import sys; sys.argv = ['kerascnn', 'train', '--help']; "
        "from kerascnn import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass",
    ],
    ids=["import", "card", "compare", "models", "help"],
)
def test_neither_tensorflow_nor_keras_is_loaded_for(code):
    check = "\nimport sys; print('loaded', {'keras', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code + check], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded set()"


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="needs oneDNN"
)
@pytest.mark.parametrize(("asked", "found"), [(None, True), ("0", False)])
def test_tensorflow_computes_with_onednn_unless_the_user_says_no(asked, found):
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    if asked:
        environment["TF_ENABLE_ONEDNN_OPTS"] = asked
    code = (
        "import kerascnn; from tensorflow.python.util import _pywrap_util_port; "
        "print(_pywrap_util_port.IsMklEnabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.split() == [str(found)]


def test_public_names_exist():
    import kerascnn

    for name in kerascnn.__all__:
        assert getattr(kerascnn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lecture_cn'"):
        kerascnn.lecture_cn  # noqa: B018


def test_no_module_hides_a_public_function():
    import kerascnn

    modules = {path.stem for path in (ROOT / "kerascnn").iterdir()}
    assert modules & set(kerascnn.__all__) == set(kerascnn._MODULES) - {"layers"}


def test_every_package_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    here = [n for n, path in modules() if path.name == "__init__.py"]
    assert sorted(listed) == sorted([*here, "kerascnn.tutorials"])
