import http.server
import io
import threading

import pytest

from kerascnn.data import DataError, cifar10_archive, download_cifar10


class Host:
    """A host on this machine that serves one file, and breaks off when told to."""

    def __init__(self, content):
        self.content, self.requests, self.ranges = content, [], True
        self.breaks = []  # bytes after which each of the next answers ends
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                host.requests.append(wanted)
                start = int(wanted[6:-1]) if wanted and host.ranges else 0
                size = len(host.content)
                if start >= size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    span = f"bytes {start}-{size - 1}/{size}"
                    self.send_header("Content-Range", span)
                self.send_header("Content-Length", str(size - start))
                self.end_headers()
                end = start + host.breaks.pop(0) if host.breaks else size
                self.wfile.write(host.content[start:end])

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/cifar-10-binary.tar.gz"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def host(published):
    path = published()
    host = Host(path.read_bytes())
    path.unlink()
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture
def fetched(monkeypatch):
    """What reaches the import, which another test is about."""
    seen = []

    def record(archive, data_dir, *, replace):
        seen.append(archive.read_bytes())
        return cifar10_archive.target_folder(data_dir, replace)

    monkeypatch.setattr(cifar10_archive, "import_cifar10", record)
    return seen


def test_a_download_is_verified_and_kept(host, fetched, tmp_path):
    target = download_cifar10(tmp_path, progress=False, url=host.url)
    assert target == tmp_path / "cifar10" / "3.0.2"
    assert fetched == [host.content]
    kept = tmp_path / "downloads" / "cifar-10-binary.tar.gz"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    download_cifar10(tmp_path, progress=False, url=host.url)
    assert host.requests == [None]  # the second one found the archive


def test_a_broken_download_goes_on_where_it_ended(host, fetched, tmp_path):
    host.breaks = [1000, 5000]
    download_cifar10(tmp_path, progress=False, url=host.url)
    assert host.requests == [None, "bytes=1000-", "bytes=6000-"]
    assert fetched == [host.content]


def test_the_next_download_resumes_what_an_earlier_one_left(host, fetched, tmp_path):
    part = tmp_path / "downloads" / "cifar-10-binary.tar.gz.part"
    part.parent.mkdir()
    part.write_bytes(host.content[:777])
    download_cifar10(tmp_path, progress=False, url=host.url)
    assert host.requests == ["bytes=777-"]
    assert fetched == [host.content]


def test_a_host_without_ranges_begins_anew(host, fetched, tmp_path):
    host.ranges, host.breaks = False, [1000]
    download_cifar10(tmp_path, progress=False, url=host.url)
    assert host.requests == [None, "bytes=1000-"]
    assert fetched == [host.content]


@pytest.mark.parametrize("surplus", [b"", b"more than the host has"])
def test_a_part_that_is_complete_or_too_long(
    host, fetched, tmp_path, surplus, monkeypatch
):
    monkeypatch.setattr(cifar10_archive.time, "sleep", lambda seconds: None)
    part = tmp_path / "downloads" / "cifar-10-binary.tar.gz.part"
    part.parent.mkdir()
    part.write_bytes(host.content + surplus)
    download_cifar10(tmp_path, progress=False, url=host.url)
    assert len(host.requests) == (2 if surplus else 1)
    assert fetched == [host.content]


def test_something_else_is_not_kept(host, fetched, tmp_path):
    host.content = b"<html>moved</html>"
    with pytest.raises(DataError, match=r"is not cifar-10-binary.tar.gz"):
        download_cifar10(tmp_path, progress=False, url=host.url)
    assert not fetched
    assert not list((tmp_path / "downloads").iterdir())


def test_it_gives_up_and_says_how_to_go_on(host, fetched, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(cifar10_archive.time, "sleep", waits.append)
    host.breaks = [500, 0, 0, 0]
    with pytest.raises(DataError, match=r"nothing in 3 attempts.*holds 500 bytes"):
        download_cifar10(tmp_path, progress=False, url=host.url, patience=3)
    assert waits == [0, 1, 3]
    host.server.shutdown()
    host.server.server_close()
    with pytest.raises(DataError, match="nothing in 2 attempts"):
        download_cifar10(tmp_path, progress=False, url=host.url, patience=2)


def test_a_missing_page_ends_it_at_once(host, tmp_path):
    with pytest.raises(DataError, match="404"):
        download_cifar10(tmp_path, progress=False, url=http_404(host), patience=3)


def http_404(host):
    class Gone(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    host.server.RequestHandlerClass = Gone
    return host.url


def test_a_prepared_data_set_is_not_downloaded_again(host, tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(DataError, match="already"):
        download_cifar10(tmp_path, progress=False, url=host.url)
    assert not host.requests


def test_the_progress_bar_counts_bytes(host, fetched, tmp_path, monkeypatch):
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    download_cifar10(tmp_path, url=host.url)
    assert "CIFAR-10" in screen.getvalue()
    assert "kB" in screen.getvalue()
