"""What a stranger needs: versions, types, the files of the project, its packages."""

import ast
import configparser
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import kerascnn

ROOT = Path(__file__).resolve().parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_comes_from_one_place(command):
    assert command("--version") == (0, f"kerascnn {kerascnn.__version__}\n", "")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: kerascnn.__version__"
    assert importlib.metadata.version("kerascnn") == kerascnn.__version__
    assert yaml.safe_load(read("CITATION.cff"))["version"] == kerascnn.__version__


def test_the_command_alone_shows_its_help_and_completes_its_words(command):
    code, out, err = command()
    assert (code, err) == (0, "") and "Commands:" in out
    environment = {
        **os.environ,
        "_KERASCNN_COMPLETE": "complete_bash",
        "COMP_WORDS": "kerascnn summ",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['kerascnn']; from kerascnn import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["summary"]


@pytest.mark.parametrize("file", ["zoo/__init__.py", "zoo.py", "zoo/photo.txt"])
def test_another_zoo_is_named_in_one_line(file, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("animals = 3")
    done = subprocess.run(
        [sys.executable, "-c", "import kerascnn"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: kerascnn needs the package `zoo`")
    assert str(tmp_path) in last and "uninstall" in last


def test_type_checkers_see_the_public_names():
    """What is imported lazily is named once more, for them alone."""
    (block,) = (n for n in ast.parse(read("kerascnn/__init__.py")).body if is_typing(n))
    seen = {alias.asname for node in block.body for alias in node.names}
    assert seen == set(kerascnn.__all__) - {"models"}
    for package in ("kerascnn", "zoo"):
        assert (ROOT / package / "py.typed").is_file()


def is_typing(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def untyped(function):
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    names = [n for n, p in signature.parameters.items() if p.annotation is empty]
    return [*names, *["return"] * (signature.return_annotation is empty)]


TYPED = [n for n in kerascnn.__all__ if inspect.isfunction(getattr(kerascnn, n))]


@pytest.mark.parametrize("name", TYPED)
def test_public_functions_have_types(name):
    assert untyped(getattr(kerascnn, name)) == []


def test_the_modules_that_are_checked_exist():
    config = tomllib.loads(read("pyproject.toml"))["tool"]["mypy"]
    assert [f for f in config["files"] if not (ROOT / f).is_file()] == []


def test_the_workflow_reads_only_and_pins_its_actions():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    matrix = jobs["readme"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest"]
    setup = read("setup.cfg")
    listed = [v for v in ("3.11", "3.12", "3.13") if f"Python :: {v}\n" in setup]
    assert matrix["python"] == listed
    steps = [step for job in jobs.values() for step in job["steps"]]
    for action in [step["uses"] for step in steps if "uses" in step]:
        assert len(action.partition("@")[2]) == 40, f"{action}: pin it by its commit"
    commands = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in commands and ".ci/run readme" in commands


def test_the_page_for_contributors_names_what_is_there():
    page = read("CONTRIBUTING.md")
    paths = set(re.findall(r"`((?:kerascnn|zoo|tests|docs|tutorials)/[\w./]*)`", page))
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_the_network_on_the_page_can_be_built():
    (code,) = re.findall(r"```python\n(.*?)```", read("CONTRIBUTING.md"), re.DOTALL)
    found = {}
    exec(textwrap.dedent("   " + code.strip()).replace("@register\n", ""), found)
    model = found["tiny_cnn"]()
    assert model.count_params() == 3 * 3 * 3 * 32 + 32 + 32 * 10 + 10
    assert (model.name, model.output_shape) == ("tiny_cnn", (None, 10))


def test_every_room_says_where_to_begin():
    packages = [
        p for r in ("kerascnn", "zoo") for p in ROOT.glob(f"{r}/**/__init__.py")
    ]
    for package in packages:
        text = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8")))
        named = re.findall(r"egin with\s+`([\w/]+?)(?:\.py)?`", text)
        places = (package.parent / f"{name}.py" for name in named)
        assert any(place.is_file() for place in places), f"{package}: begin where?"


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml"), key=str))
def test_forms_and_workflows_can_be_read(file):
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)


@pytest.mark.slow
def test_wheel_and_source_have_what_they_should(tmp_path):
    pytest.importorskip("build")
    build = [sys.executable, "-m", "build", "-q", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = [f"{n}/py.typed" for n in ("kerascnn", "zoo")]
    needed += [str(p.relative_to(ROOT)) for p in ROOT.glob("zoo/*.toml")]
    needed += [str(p.relative_to(ROOT)) for p in ROOT.glob("zoo/weights/*.npz")]
    needed += [str(p.relative_to(ROOT)) for p in ROOT.glob("kerascnn/**/*.py")]
    assert [n for n in needed if n not in names] == []
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if "dist-info" not in t} == {"kerascnn", "zoo"}
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md"} <= inside
