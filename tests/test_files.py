"""Lines that a full disk does not take. The limit on file sizes stands for it: writes fail half-way."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.files import LineFile


@contextmanager
def room(size: int) -> Iterator[None]:
    """For files of this process: bytes each."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def filled(file: Path) -> LineFile:
    """Three lines, of which there was room for one and a half; the other two were told of once."""
    lines = LineFile(file)
    with room(9):
        for number in range(3):
            lines.write(f"line {number}")
    assert file.read_text() == "line 0\nli"
    return lines


def test_what_waits_is_written_with_the_next_line_or_at_the_end(tmp_path, capsys):
    lines = filled(tmp_path / "next")
    lines.write("line 3")
    assert (tmp_path / "next").read_text() == "line 0\nline 1\nline 2\nline 3\n"
    filled(tmp_path / "end").close()
    assert (tmp_path / "end").read_text() == "line 0\nline 1\nline 2\n"
    told = capsys.readouterr()
    assert (told.out + told.err).count("its lines are kept in memory until there is room") == 2


def test_what_is_lost_is_told(tmp_path, capsys):
    lines = filled(tmp_path / "lost")
    with room(9):
        lines.close()
    told = capsys.readouterr()
    assert "lost: File too large; 2 lines are lost" in told.out + told.err


def test_a_file_that_cannot_be_made_yet_keeps_its_lines(tmp_path, monkeypatch, capsys):
    """A quota on the number of files, or no space for a folder's new entry."""
    lines = LineFile(tmp_path / "new")

    def full(*_, **__) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        lines.write("line 0")
        lines.write("line 1")
    told = capsys.readouterr()
    assert (told.out + told.err).count("Disk quota exceeded; its lines are kept in memory") == 1
    lines.close()
    assert (tmp_path / "new").read_text() == "line 0\nline 1\n"
