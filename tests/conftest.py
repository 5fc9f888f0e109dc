"""Switches and fixtures that all tests share."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import kerascnn  # noqa: F401  before Keras, as its commands are: see `kerascnn`

# The readline library tells the processes of pytest-xdist of a terminal 80 wide.
os.environ.pop("COLUMNS", None)

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(Path(__file__).parent / "pictures"))  # readable.py


def pytest_addoption(parser):
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the files in tests/golden anew instead of comparing with them",
    )


@pytest.fixture
def golden(request):
    """Compare a text with a file of tests/golden: `golden("name.txt", text)`."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--rewrite-golden"):
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        assert text + "\n" == path.read_text(encoding="utf-8"), (
            f"{path} differs; look at it, then run pytest --rewrite-golden"
        )

    return compare


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `kerascnn …` in an empty folder; returns exit code, output, error."""
    from kerascnn import cli

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["kerascnn", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: the machine's, else the one that Playwright has fetched."""
    sync = pytest.importorskip(
        "playwright.sync_api", reason="extra [browser] is absent"
    )
    names = "chromium", "chromium-browser", "google-chrome"
    found = next(filter(None, map(shutil.which, names)), None)
    quiet = "background-networking", "component-update", "sync"
    arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
    arguments += [f"--disable-{what}" for what in quiet]
    with sync.sync_playwright() as started:
        if found is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("Chromium is not installed")
        opened = started.chromium.launch(executable_path=found, args=arguments)
        yield opened
        opened.close()


def pytest_collection_modifyitems(items):
    """Let parallel workers take whole files, and the zoo's battery by its networks.

    So what a file or a network needs is built once (pytest-xdist, --dist loadgroup).
    """
    for item in items:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        group = values.get("script")  # a tutorial shares nothing
        if item.path.stem == "test_battery":
            group = values.get("network")
        item.add_marker(pytest.mark.xdist_group(str(group or item.path.stem)))
