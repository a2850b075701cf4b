"""IDX files: what was written comes back, or an error that names the file; never more is unpacked."""

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import UserError
from pipeline.data.sources.idx import digest, read_idx


def plain_idx(array: np.ndarray) -> bytes:
    start = bytes([0, 0, 8, array.ndim])
    return start + b"".join(struct.pack(">I", size) for size in array.shape) + array.tobytes()


shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)
ARRAY = np.random.default_rng(4).integers(0, 256, (3, 5, 2), np.uint8)
GOOD = plain_idx(ARRAY)


@given(shapes, st.integers(0, 2**32), st.booleans())
def test_an_array_comes_back_plain_or_gzipped_whatever_the_name(tmp_path_factory, shape, seed, packed):
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    content = plain_idx(array)
    path = tmp_path_factory.mktemp("idx") / ("images.gz" if seed % 2 else "images")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    found = read_idx(path, shape)
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)
    assert digest(found) == hashlib.sha256(content).hexdigest()


def refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_idx(path, ARRAY.shape)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_off_anywhere_is_an_error(tmp_path, packed):
    content = gzip.compress(GOOD) if packed else GOOD
    for length in range(len(content)):
        refused(tmp_path / "images", content[:length], "cut off")


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_with_more_behind_it_is_an_error(tmp_path, packed):
    more = gzip.compress(GOOD + b"\0") if packed else GOOD + b"\0"
    refused(tmp_path / "images", more, r"damaged: more than the 30 bytes of its array; fetch it again")
    if packed:
        refused(tmp_path / "images", gzip.compress(GOOD) + gzip.compress(b"x"), "damaged: more than")
        refused(tmp_path / "images", gzip.compress(GOOD) + b"<html>", "damaged .*[Nn]ot a gzipped file")


@given(st.data())
def test_a_changed_byte_in_a_gzipped_file_is_an_error_or_changes_nothing(tmp_path_factory, data):
    content = bytearray(gzip.compress(GOOD, mtime=0))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("idx") / "images.gz"
    path.write_bytes(content)
    said = None
    try:
        found = read_idx(path, ARRAY.shape)
    except UserError as error:
        said = str(error)
    assert said.startswith(f"{path}: ") if said else np.array_equal(found, ARRAY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"\x00\x00\x08\x01" + GOOD[4:],
            "starts with 00 00 08 01, an IDX file of .* 3 dimensions with 00 00 08 03",
        ),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "starts with 00 00 0d 03, an IDX file of unsigned bytes"),
        (b"<!DOCTYPE html><html>" * 9, "starts with 3c 21 44 4f"),
        (gzip.compress(b"<!DOCTYPE html>" * 9, mtime=0), "starts with 3c 21 44 4f"),
        (plain_idx(ARRAY[:2]), "holds 2x5x2 bytes, 3x5x2 belong there"),
        (plain_idx(ARRAY.transpose(0, 2, 1)), "holds 3x2x5 bytes, 3x5x2 belong there"),
        (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "holds 4294967295x4294967295x4294967295 bytes"),
    ],
)
def test_another_array_is_an_error_that_says_which(tmp_path, content, message):
    refused(tmp_path / "images", content, message)


def test_of_a_gzip_bomb_no_more_is_unpacked_than_the_array_needs(tmp_path):
    bomb = gzip.compress(GOOD + bytes(2**27), 1)
    tracemalloc.start()
    try:
        refused(tmp_path / "images.gz", bomb, "damaged: more than the 30 bytes")
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(UserError, match="gone: cannot be read: No such file"):
        read_idx(tmp_path / "gone", (1,))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_idx(tmp_path, (1,))
