"""Cached arrays: whole or made again, and gone on with where a job was killed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.transfer import cache
from pipeline.transfer.cache import Growing, kept


def arrays(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(rows, width)).astype(np.float32) for name, width in {"a": 3, "b": 5}.items()
    }


def targets(folder: Path) -> dict[str, tuple[Path, dict]]:
    return {name: (folder / f"{name}.npy", {"of": name}) for name in "ab"}


def grow(folder: Path, whole: dict, *pieces: int, stop: bool = False) -> int:
    """Goes on by pieces of that many rows; the row it began at. :param stop: leaves early."""
    total = len(whole["a"])
    with Growing(folder / "grown.partial", list(whole), total) as growing:
        first = growing.rows
        for count in pieces:
            rows = slice(growing.rows, min(growing.rows + count, total))
            if rows.start < total:
                growing.append({name: array[rows] for name, array in whole.items()})
        if not stop:
            growing.finish(targets(folder))
    return first


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=8), st.integers(1, 30))
@settings(max_examples=25)
def test_whatever_the_pieces_and_interruptions_the_file_is_the_same(tmp_path_factory, steps, total):
    folder, whole = tmp_path_factory.mktemp("grown"), arrays(total)
    done, pending = 0, []
    for count, stop in steps:
        pending.append(count)
        if stop:
            assert grow(folder, whole, *pending, stop=True) == done
            done, pending = min(total, done + sum(pending)), []
    assert grow(folder, whole, *pending, total) == done
    for name, array in whole.items():
        np.save(folder / "expected.npy", array)
        assert (folder / f"{name}.npy").read_bytes() == (folder / "expected.npy").read_bytes()
        assert np.array_equal(kept(folder / f"{name}.npy"), array)
    assert not (folder / "grown.partial").exists()


def test_killed_while_it_writes(tmp_path):
    """What was written after the last save is cut off; where what was sure is damaged, all is made anew."""
    whole = arrays(20)
    grow(tmp_path, whole, 8, stop=True)
    torn = tmp_path / "grown.partial" / "a"
    with torn.open("ab") as file:
        file.write(b"half a row")
    assert grow(tmp_path, whole, 4, stop=True) == 8
    content = bytearray(torn.read_bytes())
    content[200] ^= 1
    torn.write_bytes(content)
    assert grow(tmp_path, whole, 20) == 0
    assert np.array_equal(kept(tmp_path / "a.npy"), whole["a"])

    grow(tmp_path, whole, 8, stop=True)
    (tmp_path / "grown.partial" / "b").unlink()
    assert grow(tmp_path, whole, 8, stop=True) == 0
    (tmp_path / "grown.partial" / "progress.json").write_text("{")
    assert grow(tmp_path, whole, 20) == 0


def test_two_living_jobs_do_not_share_a_file(tmp_path):
    whole = arrays(10)
    with Growing(tmp_path / "grown.partial", ["a", "b"], 10) as growing:
        growing.append({name: array[:4] for name, array in whole.items()})
        assert grow(tmp_path, whole, 10) == 0  # another one, from its own beginning to its end
        growing.append({name: array[4:] for name, array in whole.items()})
        growing.finish(targets(tmp_path))
    assert np.array_equal(kept(tmp_path / "b.npy"), whole["b"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "a.json", "b.npy", "b.json"}


def test_what_is_not_whole_is_told_in_a_line(tmp_path, capsys):
    whole = arrays(50)
    file, manifest = tmp_path / "a.npy", tmp_path / "a.json"
    assert kept(file) is None
    assert capsys.readouterr().err == "", "nothing there is nothing wrong"

    def fresh() -> bytes:
        grow(tmp_path, whole, 50)
        assert kept(file) is not None
        return file.read_bytes()

    def told(words: str) -> None:
        assert kept(file) is None
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error
        assert "it is computed again" in error

    content = bytearray(fresh())
    file.write_bytes(content[:-40])
    told("a.npy: damaged or cut off")
    fresh()
    content[300] ^= 1
    file.write_bytes(content)
    told("a.npy: damaged or cut off")
    fresh()
    about = json.loads(manifest.read_text())
    assert about["of"] == "a"
    manifest.write_text(json.dumps(about | {"version": cache.VERSION + 1}))
    told(f"of version {cache.VERSION + 1}, this program writes {cache.VERSION}")
    manifest.write_text(json.dumps({"sha256": about["sha256"]}))
    told("of version 1, this program")
    manifest.write_text("[1]")
    told("damaged (AttributeError)")
    manifest.write_text("{")
    told("damaged (JSONDecodeError)")


def test_a_file_is_hashed_once_a_process(tmp_path):
    whole = arrays(50)
    grow(tmp_path, whole, 50)
    file = tmp_path / "a.npy"
    assert kept(file) is not None
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[300] ^= 1
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept(file) is not None, "untouched, as far as its time tells: not read again"
    os.utime(file)
    assert kept(file) is None


def test_rows_must_be_complete(tmp_path):
    with Growing(tmp_path / "grown.partial", ["a"], 5) as growing:
        growing.append({"a": np.zeros((3, 2), np.float32)})
        with pytest.raises(AssertionError, match="3 of 5 rows"):
            growing.finish(targets(tmp_path))
