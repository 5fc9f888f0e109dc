import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import archives


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that writes an archive and makes its checksum the published one."""
    archives.shrink(monkeypatch)

    def publish(files=None, extra=(), *, kind="binary"):
        files = files or getattr(archives, f"{kind}_files")()
        path = archives.write(tmp_path / f"cifar-10-{kind}.tar.gz", files, extra)
        archives.publish(monkeypatch, **{kind: path})
        return path

    return publish
