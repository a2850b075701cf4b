"""Files within tar archives: where they lie, or an error that names the archive; only headers are read."""

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import UserError
from pipeline.data.sources.tars import Member, members_of, nested_members_of

CONTENTS = {
    "b.JPEG": b"\xff\xd8" * 400,
    "a.JPEG": b"\xff\xd8" * 256,  # a whole block
    "empty.JPEG": b"",
    "folder/é sp ace.JPEG": b"x",
    "deep/" + "long" * 60 + "/" + "name" * 30 + ".JPEG": b"y" * 513,
}


def pack(contents: dict[str, bytes], form=tarfile.GNU_FORMAT) -> bytes:
    """A tar of these files, and of what is to be passed over."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:", format=form) as tar:
        for name, kind in (("deep", tarfile.DIRTYPE), ("pipe", tarfile.FIFOTYPE), ("null", tarfile.CHRTYPE)):
            add(tar, name, b"", kind)
        for name, content in contents.items():
            add(tar, name, content)
        for name in ("._b.JPEG", "deep/.hidden/x.JPEG"):
            add(tar, name, b"no picture")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes, kind=tarfile.REGTYPE, **fields) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def contents_at(tar: Path, members: list[Member]) -> dict[str, bytes]:
    whole = tar.read_bytes()
    return {m.name: whole[m.offset : m.offset + m.size] for m in members}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_file_lies_where_it_is_said_to(tmp_path, form):
    tar = write(tmp_path / "x.tar", pack(CONTENTS, form))
    members = members_of(tar)
    assert [member.name for member in members] == list(CONTENTS)
    assert contents_at(tar, members) == CONTENTS


@pytest.mark.parametrize("form", ["gnu", "posix", "v7", "ustar"])
def test_archives_of_gnu_tar_are_read(tmp_path, form):
    names = list(CONTENTS)[: 3 if form in ("v7", "ustar") else None]
    for name in names:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(CONTENTS[name])
    subprocess.run(["tar", "-C", "files", "--format", form, "-cf", "x.tar", "."], cwd=tmp_path, check=True)
    members = members_of(tmp_path / "x.tar")
    assert contents_at(tmp_path / "x.tar", members) == {name: CONTENTS[name] for name in names}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_offsets_of_nested_archives_are_in_the_outer_one(tmp_path, form):
    other = {"one.JPEG": b"1", "b.JPEG": b"another b"}
    inner = {
        "second.tar": pack(other, form),
        "first.tar": pack(CONTENTS),
        "none.tar": pack({}),
        "notes.txt": b"-",
    }
    tar = write(tmp_path / "outer.tar", pack(inner, form))
    found = dict(nested_members_of(tar))
    assert list(found) == ["second.tar", "first.tar", "none.tar"]
    assert contents_at(tar, found["first.tar"]) == CONTENTS
    assert contents_at(tar, found["second.tar"]) == other
    assert found["none.tar"] == []


def test_only_headers_are_read_and_offsets_may_be_large(tmp_path):
    size, tar = 5 * 2**30, tmp_path / "large.tar"
    header = tarfile.TarInfo("large.JPEG")
    header.size = size
    inner = pack({"behind.JPEG": b"found"})
    header_of_inner = tarfile.TarInfo("inner.tar")
    header_of_inner.size = len(inner)
    with open(tar, "wb") as file:
        file.write(header.tobuf())
        file.seek(size, os.SEEK_CUR)  # a hole: nothing of it is on the disk
        file.write(header_of_inner.tobuf() + inner.ljust(-(-len(inner) // 512) * 512, b"\0") + bytes(1024))
    before = bytes_read()
    ((name, [member]),) = nested_members_of(tar)
    assert bytes_read() - before < 2**17
    assert (name, member.name, member.size) == ("inner.tar", "behind.JPEG", 5)
    with open(tar, "rb") as file:
        file.seek(member.offset)
        assert file.read(5) == b"found"
    assert member.offset > size


def bytes_read() -> int:
    """By this process so far, from files and from memory."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


def refused(tar: Path, message: str, read=members_of) -> None:
    with pytest.raises(UserError, match=message) as raised:
        list(read(tar))
    assert str(raised.value).startswith(f"{tar}: ")
    assert "\n" not in str(raised.value)


SMALL = pack({"a.JPEG": b"A" * 700, "b.JPEG": b"B" * 3})
END = len(SMALL.rstrip(b"\0")) // 512 * 512 + 512  # of the last member, where the end is marked


def test_an_archive_cut_off_anywhere_is_an_error(tmp_path):
    for length in range(0, END + 511, 73):
        refused(write(tmp_path / "x.tar", SMALL[:length]), "cut off or damaged")
    whole = members_of(write(tmp_path / "x.tar", SMALL))
    assert members_of(write(tmp_path / "x.tar", SMALL[: END + 1024])) == whole


def test_a_nested_archive_cut_off_anywhere_is_an_error(tmp_path):
    for length in range(0, END + 511, 146):
        outer = pack({"n01440764.tar": SMALL[:length], "n01443537.tar": SMALL})
        refused(write(tmp_path / "x.tar", outer), r"n01440764\.tar: cut off or damaged", nested_members_of)
    outer = pack({"n01440764.tar": SMALL, "n01443537.tar": SMALL})
    for length in range(0, len(outer.rstrip(b"\0")), 997):
        refused(write(tmp_path / "x.tar", outer[:length]), "cut off or damaged", nested_members_of)


@given(st.integers(0, END + 1024 - 1), st.integers(1, 255))
@example(END, 1)
@example(END + 700, 1)
def test_a_changed_byte_is_an_error_or_changes_nothing(tmp_path_factory, place, change):
    tar = tmp_path_factory.mktemp("tar") / "x.tar"
    whole = members_of(write(tar, SMALL))
    changed = bytearray(SMALL)
    changed[place] ^= change
    write(tar, changed)
    said = None
    try:
        found = members_of(tar)
    except UserError as error:
        said = str(error)
    assert said.startswith(f"{tar}: ") if said else found == whole


def test_noise_is_an_error(tmp_path):
    for seed in range(50):
        noise = random.Random(seed).randbytes(3000)
        refused(write(tmp_path / "x.tar", noise), "cut off or damaged")


def test_a_hole_where_a_header_was_is_an_error_and_not_the_end(tmp_path):
    second = SMALL.index(b"b.JPEG")
    holed = SMALL[:second] + bytes(512) + SMALL[second + 512 :]
    refused(
        write(tmp_path / "x.tar", holed), r"its end is marked at byte [\d,]+ of 10,240: damaged, or several"
    )


def test_joined_archives_are_refused(tmp_path):
    refused(write(tmp_path / "x.tar", SMALL + SMALL), "its end is marked .* or several archives joined")
    refused(write(tmp_path / "x.tar", SMALL + bytes(2**21)), "its end is marked")


PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("packer", PACKERS)
def test_a_compressed_archive_is_refused_by_name(tmp_path, packer):
    packed = PACKERS[packer](SMALL)
    message = f"compressed by {packer}, and its files cannot be read in place; decompress it"
    refused(write(tmp_path / "x.tar", packed), message)
    outer = write(tmp_path / "y.tar", pack({"n01440764.tar": packed}))
    refused(outer, rf"n01440764\.tar: {message}", nested_members_of)


def test_a_first_name_that_begins_as_a_packer_does_is_a_name(tmp_path):
    assert [m.name for m in members_of(archive(tmp_path, ("PK.JPEG", b"x", tarfile.REGTYPE, {})))] == [
        "PK.JPEG"
    ]


def archive(folder: Path, *members: tuple) -> Path:
    with tarfile.open(folder / "x.tar", "w:") as tar:
        for name, content, kind, fields in members:
            add(tar, name, content, kind, **fields)
    return folder / "x.tar"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused(tmp_path, kind):
    tar = archive(tmp_path, ("l.JPEG", b"", kind, {"linkname": "a.JPEG"}))
    refused(tar, r"its member 'l\.JPEG' is a link and cannot be read in place; unpack it")


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_members_are_refused(tmp_path, form):
    with open(tmp_path / "s.JPEG", "wb") as file:
        file.seek(2**20)
        file.write(b"x" * 4096)
    command = ["tar", "--sparse", "--hole-detection=raw", "--format", form, "-cf", "x.tar", "s.JPEG"]
    subprocess.run(command, cwd=tmp_path, check=True)
    refused(tmp_path / "x.tar", "its member 's.JPEG' is sparse and cannot be read in place")


@pytest.mark.parametrize("name", ["/a.JPEG", "../a.JPEG", "x/../../a.JPEG", "a\nb.JPEG", "\udcff.JPEG"])
def test_names_that_no_publisher_gives_are_refused(tmp_path, name):
    refused(archive(tmp_path, (name, b"x", tarfile.REGTYPE, {})), "is none of a publisher's; fetch it again")


def test_a_name_that_comes_twice_is_refused(tmp_path):
    one, two = ("./a.JPEG", b"1", tarfile.REGTYPE, {}), ("a.JPEG", b"2", tarfile.REGTYPE, {})
    refused(archive(tmp_path, one, two), r"holds 'a\.JPEG' twice")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"Z"])
@pytest.mark.parametrize("size", [-512, -1024, -(2**40), 2**50])
@pytest.mark.timeout(20)
def test_a_size_that_leads_back_or_far_beyond_is_an_error(tmp_path, kind, size):
    header = tarfile.TarInfo("a.JPEG")
    header.type, header.size = kind, size
    evil = header.tobuf(tarfile.GNU_FORMAT)
    refused(write(tmp_path / "x.tar", SMALL[:END] + evil + bytes(1024)), "cut off or damaged")


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (tarfile.XHDTYPE, "-512"),
        (tarfile.XHDTYPE, "99999999999999"),
        (tarfile.XGLTYPE, "-512"),
        (tarfile.XGLTYPE, "700"),  # tarfile believes it, and steps on by the one byte of the header
    ],
)
@pytest.mark.timeout(20)
def test_a_pax_size_that_does_not_fit_is_an_error(tmp_path, kind, size):
    record = f" size={size}\n"
    record = f"{len(record) + 2}{record}".encode()
    tar = archive(tmp_path, ("pax", record, kind, {}), ("a.JPEG", b"x", tarfile.REGTYPE, {}))
    refused(tar, "cut off or damaged")


def test_what_cannot_be_opened_is_an_error(tmp_path):
    refused(tmp_path / "gone.tar", "cannot be read: No such file")
    refused(tmp_path, "cannot be read: Is a directory")
    refused(write(tmp_path / "empty.tar", b""), r"cut off or damaged \(empty header\)")
    refused(write(tmp_path / "page.tar", b"<!DOCTYPE html>" * 100), "cut off or damaged")
