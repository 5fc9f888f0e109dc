"""Every tutorial runs as a script, without a display, and as a notebook."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kerascnn import notebooks

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
# The site's own module runs the notebooks.
_spec = importlib.util.spec_from_file_location(
    "executed", FOLDER.parent / "docs" / "extensions" / "executed.py"
)
executed = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(executed)
# TensorFlow anew for each, and for a notebook a kernel: by default a few stand for all,
# so that the suite stays within minutes. Continuous integration runs every one at smoke
# size: the scripts in a step of their own, the notebooks when it builds the site.
QUICK_SCRIPTS = ("03_convolution", "04_filters", "07_architecture", "11_vgg19")
QUICK_NOTEBOOKS = ("05_stride_and_padding", "07_architecture")


def at_both_sizes(quick):
    """Every tutorial at smoke and at full size; slow but for some at smoke size."""
    cases = [
        pytest.param(
            script,
            size,
            id=f"{script.stem}-{size}",
            marks=() if size == "smoke" and script.stem in quick else pytest.mark.slow,
        )
        for script in SCRIPTS
        for size in ("smoke", "full")
    ]
    return pytest.mark.parametrize(("script", "size"), cases)


# What a tutorial needs beyond the package, by its extra.
NEEDED = {
    "13_export_and_serve": ("orjson", "starlette", "uvicorn", "prometheus_client")
}
END = "All numbers of this tutorial hold."


def has_what_it_needs(script):
    for package in NEEDED.get(script.stem, ()):
        pytest.importorskip(package, reason="of the extra [serve]")


@at_both_sizes(QUICK_SCRIPTS)
def test_runs_and_draws_readable_letters(script, size, tmp_path):
    has_what_it_needs(script)
    watched = Path(__file__).parent / "pictures" / "readable.py"
    done = subprocess.run(
        [sys.executable, str(watched), str(script)],
        cwd=tmp_path,
        env={
            **os.environ,
            "KERASCNN_SMOKE": "1" if size == "smoke" else "",
            "MPLBACKEND": "Agg",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert END in done.stdout


@at_both_sizes(QUICK_NOTEBOOKS)
def test_runs_as_a_notebook(script, size, tmp_path):
    has_what_it_needs(script)
    for package in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(package, reason="of the extra [docs]")
    # The site is built from the same notebooks: executed once, they serve both.
    kept = os.environ.get("KERASCNN_EXECUTED")
    folder = Path(kept) / size if kept else tmp_path
    path = executed.execute(int(script.name[:2]), folder, smoke=size == "smoke")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["metadata"]["kerascnn"]["size"] == size
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    assert END in printed
    shown = [o for o in outputs if {"image/png", "image/gif"} & set(o.get("data", {}))]
    assert bool(shown) == ("FIGURES" in script.read_text(encoding="utf-8"))
    for output in shown:
        (about,) = output["metadata"].values()
        assert about["alt"].strip()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_exercise_has_its_solution(script):
    text = script.read_text(encoding="utf-8")
    _, _, rest = text.partition("\n# ## Exercises\n")
    asked, _, answered = rest.partition("\n# ## Solutions\n")
    exercises = re.findall(r"^# (\d+)\. ", asked, re.M)
    assert len(exercises) >= 3
    assert re.findall(r"^# (\d+)\. ", answered, re.M) == exercises


def test_the_list_has_every_tutorial():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    first, _, slides = text.partition("## The lecture, slide by slide")
    assert re.findall(r"^\| \[(\w+\.py)\]\(\1\)", first, re.M) == [
        path.name for path in SCRIPTS
    ]
    # The lecture's slides have seventeen rows.
    rows = re.findall(r"^\| (\d+) \|.*\]\((\w+\.py)\) \|$", slides, re.M)
    assert [int(number) for number, _ in rows] == list(range(17))
    for number, name in re.findall(r"\[(\d\d)\]\((\w+\.py)\)", slides):
        assert name.startswith(number) and (FOLDER / name).exists()


def test_the_package_finds_them_by_number():
    assert list(notebooks.scripts().values()) == SCRIPTS
    assert "33,120" in notebooks.title(notebooks.script(7))
    with pytest.raises(ValueError, match="there is no tutorial 99; there are 0"):
        notebooks.script(99)


def test_a_notebook_has_the_cells_of_the_script(tmp_path):
    pytest.importorskip("jupytext")
    written = notebooks.notebook(7, tmp_path)
    cells = json.loads(written.read_text())["cells"]
    kinds = [cell["cell_type"] for cell in cells]
    text = notebooks.script(7).read_text().splitlines()
    assert kinds.count("markdown") == text.count("# %% [markdown]")
    # And the one that shows the figures.
    marks = [line for line in text if line.startswith("# %%")]
    assert len(marks) == len(kinds) - 1
    assert "show_figures()" in cells[kinds.index("code")]["source"][-1]
    with pytest.raises(FileExistsError, match="move it"):
        notebooks.notebook(7, tmp_path)


LITTLE = """# %% [markdown]
# # 00 A little tutorial

# %%
import os
from pathlib import Path

from PIL import Image, PngImagePlugin

print("smoke:", os.environ.get("KERASCNN_SMOKE"))
print("WARNING:tensorflow:5 out of the last 5 calls, as TensorFlow writes to stdout")

# %%
folder = Path("tutorials/output")
folder.mkdir(parents=True, exist_ok=True)
about = PngImagePlugin.PngInfo()
about.add_text("Description", "one red pixel")
Image.new("RGB", (1, 1), "red").save(folder / "red.png", pnginfo=about)
Image.new("P", (1, 1)).save(folder / "a_grey_one.gif")

# %%
print("no picture here")
"""


@pytest.fixture
def little(tmp_path, monkeypatch):
    """A tutorial that draws two pictures; a folder for its notebook."""
    for package in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(package, reason="of the extra [docs]")
    script = tmp_path / "00_little.py"
    script.write_text(LITTLE)
    monkeypatch.setattr(notebooks, "scripts", lambda: {0: script})
    return script, tmp_path / "kept"


def test_a_notebook_shows_each_figure_below_the_cell_that_draws_it(little):
    _, kept = little
    content = json.loads(executed.execute(0, kept, smoke=True).read_text())
    markdown, _, first, second, third = content["cells"]
    assert "".join(markdown["source"]) == "# 00 A little tutorial"
    assert first["outputs"][0]["text"] == ["smoke: 1\n"]
    png, gif = (output for output in second["outputs"])
    assert png["metadata"] == {"image/png": {"alt": "one red pixel"}}
    assert gif["metadata"] == {"image/gif": {"alt": "a grey one"}}
    assert {output["output_type"] for output in third["outputs"]} == {"stream"}


def test_a_notebook_is_executed_again_when_something_has_changed(little):
    script, kept = little

    def made(**options):
        path = executed.execute(0, kept, **options)
        return json.loads(path.read_text())["metadata"]["kerascnn"], path

    first, path = made(smoke=True)
    path.write_text(path.read_text().replace('"seconds"', '"moments"'))
    again, _ = made(smoke=True)
    assert "moments" in again  # was not touched
    full, path = made()
    assert full["size"] == "full" and full["sources"] == first["sources"]
    assert "smoke: None" in path.read_text()
    script.write_text(LITTLE + "\n\n# %%\nraise KeyError('the end')\n")
    with pytest.raises(RuntimeError, match=r"(?s)00_little.py.*KeyError: 'the end'"):
        made()
    assert json.loads(path.read_text())["metadata"]["kerascnn"] == full


def test_figures_are_shown_in_notebooks_only():
    with pytest.raises(RuntimeError, match="works in a notebook"):
        notebooks.show_figures()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_is_kept_for_the_site_is_of_the_script(path):
    pytest.importorskip("jupytext", reason="of the extra [notebook]")
    kept = SCRIPTS[0].parents[1] / "docs" / "executed" / "full"
    content = executed.kept(int(path.stem[:2]), kept)
    assert content.metadata["kerascnn"]["size"] == "full"
    assert "WARNING:tensorflow" not in str(content)


def test_what_is_kept_may_have_other_prose_but_not_other_code(tmp_path, monkeypatch):
    pytest.importorskip("jupytext", reason="of the extra [notebook]")
    from nbformat.v4 import new_output

    script = tmp_path / "00_small.py"
    script.write_text("# %% [markdown]\n# # 00 Old\n\n# %%\nprint(1)\n")
    monkeypatch.setattr(notebooks, "scripts", lambda: {0: script})
    with pytest.raises(ValueError, match="is not there"):
        executed.kept(0, tmp_path)
    content = notebooks.cells(0)
    content.metadata["kerascnn"] = {"size": "full"}
    content.cells[-1].outputs = [new_output("stream", name="stdout", text="1\n")]
    notebooks.write(content, tmp_path / "00_small.ipynb")
    script.write_text("# %% [markdown]\n# # 00 New\n\n# %%\nprint(1)\n")
    found = executed.kept(0, tmp_path)
    assert found.cells[0].source == "# 00 New"
    assert found.cells[-1].outputs[0]["text"] == "1\n"
    script.write_text("# %% [markdown]\n# # 00 New\n\n# %%\nprint(2)\n")
    with pytest.raises(ValueError, match="comes of other code than 00_small"):
        executed.kept(0, tmp_path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_exercises_come_without_their_solutions(path):
    text = notebooks.exercises(int(path.stem[:2]))
    assert "## Exercises" in text and "\n1. " in text and "\n2. " in text
    assert "Solutions" not in text and "assert" not in text


def test_the_minutes_in_class_are_those_of_the_words():
    readme = (SCRIPTS[0].parent / "README.md").read_text(encoding="utf-8")
    for path in SCRIPTS:
        cells = re.split(r"(?m)^# %%", path.read_text(encoding="utf-8"))
        words = sum(
            len(cell.split()) for cell in cells if cell.startswith(" [markdown]")
        )
        minutes = re.search(rf"\| \[{path.name}\].* \| (\d+) \|\n", readme)[1]
        assert int(minutes) == 5 * round(words / 500)
