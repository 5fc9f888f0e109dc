"""Versions appear whole or not at all, one after the other."""

import os
import resource
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kerascnn import serving
from kerascnn.serving import publish as module
from kerascnn.serving import verification
from kerascnn.serving.publish import publish, published

WHOLE = (
    "saved_model.pb",
    "fingerprint.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets.extra/labels.txt",
    "assets.extra/tf_serving_warmup_requests",
    "labels.txt",
    "manifest.json",
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def put(folder, content="x"):
    """Publish a version that is one file."""
    with module.staging(folder) as staged:
        (staged / "saved_model.pb").write_text(content, encoding="utf-8")
        return publish(staged, folder)


def test_numbers(tmp_path):
    folder = tmp_path / "a" / "b"
    assert published(folder) == []
    assert put(folder) == folder / "1"
    assert put(folder) == folder / "2"
    (folder / "007").mkdir()
    (folder / "notes").mkdir()
    (folder / "model.config").write_text("config", encoding="utf-8")
    (folder / "-12").mkdir()
    (folder / "٣١").mkdir()  # decimal digits, but no number to a server
    assert put(folder) == folder / "8"
    assert published(folder) == [1, 2, 7, 8]
    assert (folder / "model.config").read_text(encoding="utf-8") == "config"
    assert names(folder) == sorted(
        ["1", "2", "007", "8", "notes", "model.config", "-12", "٣١"]
    )


def test_neither_a_file_nor_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "3").write_text("a file in the way", encoding="utf-8")
    assert put(tmp_path) == tmp_path / "4"
    (tmp_path / "5").mkdir()
    assert put(tmp_path) == tmp_path / "6"
    assert (tmp_path / "3").is_file()
    assert list((tmp_path / "5").iterdir()) == []


@pytest.mark.parametrize("taken", ["version", "empty folder", "file"])
def test_number_taken_between_look_and_rename(tmp_path, monkeypatch, taken):
    put(tmp_path)
    listing = [[1]]  # what another export saw too, before it published 2
    seen = module.published
    monkeypatch.setattr(
        module, "published", lambda folder: listing.pop() if listing else seen(folder)
    )
    other = tmp_path / "2"
    if taken == "file":
        other.write_text("other", encoding="utf-8")
    else:
        other.mkdir()
        if taken == "version":
            (other / "saved_model.pb").write_text("other", encoding="utf-8")
    assert put(tmp_path, "mine") == tmp_path / "3"
    assert (tmp_path / "3" / "saved_model.pb").read_text(encoding="utf-8") == "mine"
    if taken == "version":
        assert (other / "saved_model.pb").read_text(encoding="utf-8") == "other"


def test_rename_itself_finds_the_number_taken(tmp_path, monkeypatch):
    rename = os.rename

    def late(source, target):
        if Path(target).name == "1":  # between the check and the rename
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "saved_model.pb").write_text("other", encoding="utf-8")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert put(tmp_path, "mine") == tmp_path / "2"
    assert (tmp_path / "1" / "saved_model.pb").read_text(encoding="utf-8") == "other"


def test_rename_that_fails_for_another_reason(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        put(tmp_path)
    assert names(tmp_path) == []


def test_many_at_once(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda n: put(tmp_path, str(n)), range(64)))
    assert sorted(int(path.name) for path in paths) == list(range(1, 65))
    for number, path in enumerate(paths):
        text = (path / "saved_model.pb").read_text(encoding="utf-8")
        assert text == str(number)
    assert published(tmp_path) == list(range(1, 65))
    assert len(names(tmp_path)) == 64


def test_a_reader_sees_whole_versions_only(tiny, tmp_path):
    model, partial, seen, done = tiny(channels=3), [], set(), threading.Event()

    def watch():
        while not done.is_set():
            for number in published(tmp_path):
                seen.add(number)
                version = tmp_path / str(number)
                partial.extend(n for n in WHOLE if not (version / n).is_file())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(2):
            serving.export(model, tmp_path)
        deadline = time.monotonic() + 30
        while seen != {1, 2} and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        done.set()
        watcher.join()
    assert seen == {1, 2}
    assert partial == []
    assert names(tmp_path) == ["1", "2"]


def test_another_user_can_read_a_version(tiny, tmp_path):
    """A server often runs as one; tempfile.mkdtemp would shut it out."""
    before = os.umask(0o022)
    try:
        version = serving.export(tiny(), tmp_path / "served")
    finally:
        os.umask(before)
    for path in [version, *version.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_a_failure_leaves_nothing(tiny, tmp_path, monkeypatch, failure):
    first = serving.export(tiny(), tmp_path)
    staged = []

    def fail(version, *_):
        staged.append(version.name)
        assert (version / "saved_model.pb").is_file()  # nearly done
        raise failure

    monkeypatch.setattr(verification, "prove", fail)
    with pytest.raises(failure):
        serving.export(tiny(), tmp_path)
    assert staged[0].startswith(".staging-")
    assert names(tmp_path) == [first.name]


def test_disk_full(tiny, tmp_path):
    """A limit on the size of files stops the writes as a full disk does."""
    model = tiny()
    folder = tmp_path / "served"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(serving.ExportError) as raised:
            serving.export(model, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(raised.value)
    assert message.startswith(f"cannot write a version into {folder}")
    assert "nothing was published" in message
    assert "MB are free there" in message
    assert "\n" not in message
    assert names(folder) == []
    assert serving.export(model, folder) == folder / "1"


def test_a_file_in_the_way(tiny, tmp_path):
    file = tmp_path / "served"
    file.write_text("a file", encoding="utf-8")
    for folder in (file, file / "below"):
        with pytest.raises(NotADirectoryError) as raised:
            serving.export(tiny(), folder)
        assert (
            str(raised.value) == f"{file} is a file, not a folder; export to a folder"
        )
    assert file.read_text(encoding="utf-8") == "a file"


def test_a_folder_that_is_not_writable(tmp_path, monkeypatch):
    folder = tmp_path / "served"
    folder.mkdir()
    if os.geteuid() == 0:  # nothing is forbidden to root
        mkdir = Path.mkdir

        def refuse(path, *arguments, **options):
            if path.name.startswith(module.PREFIX):
                raise PermissionError(13, "Permission denied", str(path))
            mkdir(path, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", refuse)
    else:
        folder.chmod(0o555)
    with pytest.raises(PermissionError) as raised:
        put(folder)
    assert str(raised.value) == (
        f"cannot write to {folder}: Permission denied; export to another folder"
    )


def test_what_a_killed_export_left_is_removed(tmp_path):
    """And what a living one is writing is not."""
    script = (
        "import os, sys, pathlib\n"
        "from kerascnn.serving.publish import staging\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with staging(folder) as staged:\n"
        "    (staged / 'variables').mkdir()\n"
        "    (staged / 'variables' / 'half').write_text('half a version')\n"
        "    print(staged.name, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    os._exit(9)\n"
    )
    root = Path(serving.__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        left = process.stdout.readline().strip()
        assert put(tmp_path).name == "1"
        assert names(tmp_path) == sorted([left, f"{left}.lock", "1"])  # it lives
        process.stdin.write("\n")
    assert process.returncode == 9
    assert names(tmp_path) == sorted([left, f"{left}.lock", "1"])
    assert put(tmp_path).name == "2"
    assert names(tmp_path) == ["1", "2"]


def test_what_nobody_holds_is_removed(tmp_path):
    """A directory or a lock alone, as a process leaves that is killed in between."""
    (tmp_path / ".staging-a").mkdir()
    (tmp_path / ".staging-b.lock").touch()
    with module.staging(tmp_path) as staged, module.staging(tmp_path) as other:
        assert names(tmp_path) == sorted(
            name + ending
            for name in (staged.name, other.name)
            for ending in ("", ".lock")
        )
    assert names(tmp_path) == []


@pytest.mark.parametrize("beyond", [2**63, 10**19, 10**40])
def test_numbers_beyond_64_bits_are_none_to_a_server(tmp_path, beyond):
    (tmp_path / str(beyond)).mkdir()
    assert published(tmp_path) == []
    assert put(tmp_path).name == "1"
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(OSError, match="the greatest that servers know"):
        put(tmp_path)


def test_two_exports_at_once(tiny, tmp_path):
    models = [tiny(channels=3), tiny(channels=4)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda m: serving.export(m, tmp_path), models))
    assert sorted(path.name for path in made) == names(tmp_path) == ["1", "2"]
    for path, channels in zip(made, (3, 4), strict=True):
        images = np.zeros((1, 8, 8, channels), np.uint8)
        assert serving.open_version(path).ask(images)["probabilities"].shape == (1, 3)


@pytest.mark.slow
def test_two_exports_at_once_in_two_processes(tmp_path):
    script = (
        "import sys\n"
        "from kerascnn import serving\n"
        "from zoo.lecture_cnn import lecture_cnn\n"
        "model = lecture_cnn()\n"
        "for _ in range(3): print(serving.export(model, sys.argv[1]).name)\n"
    )
    root = Path(serving.__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    numbers = [int(n) for p in processes for n in p.communicate()[0].split()]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    for number in numbers:
        for name in WHOLE:
            assert (tmp_path / str(number) / name).is_file()
