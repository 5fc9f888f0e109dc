"""Every tutorial runs as a script, without a display."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerascnn import lessons

SCRIPTS = sorted((Path(__file__).resolve().parents[1] / "tutorials").glob("[0-9]*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "KERASCNN_SMOKE": "1", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "All numbers of this tutorial hold." in done.stdout


def test_the_package_finds_them_by_number():
    assert list(lessons.scripts().values()) == SCRIPTS
    assert "33,120" in lessons.title(lessons.script(7))
    with pytest.raises(ValueError, match="there is no tutorial 99; there are 0"):
        lessons.script(99)


def test_a_notebook_has_the_cells_of_the_script(tmp_path):
    pytest.importorskip("jupytext")
    written = lessons.notebook(7, tmp_path)
    cells = json.loads(written.read_text())["cells"]
    kinds = [cell["cell_type"] for cell in cells]
    text = lessons.script(7).read_text().splitlines()
    assert kinds.count("markdown") == text.count("# %% [markdown]")
    assert kinds.count("code") == text.count("# %%")
    with pytest.raises(FileExistsError, match="move it"):
        lessons.notebook(7, tmp_path)
