"""Publishers' archives: unpacked whole or not at all, once, and never outside their folder."""

import io
import os
import shutil
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import downstream_small as small
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources_downstream import content, located

from pipeline.config import UserError
from pipeline.data.sources import Options, archive, read
from pipeline.data.sources.archive import MARK, unpack

ARCHIVES = {
    "caltech101": "101_ObjectCategories.tar.gz",
    "voc2007": "VOCtrainval_06-Nov-2007.tar",
    "cub200": "CUB_200_2011.tgz",
    "aircraft": "fgvc-aircraft-2013b.tar.gz",
    "cars": "cars_train.tgz",
}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with what its file holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != MARK
    }


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_give_what_the_folders_give(tmp_path, name):
    small.archives(name, tmp_path / "fetched", tmp_path / "scratch")
    options = Options(unpacked=tmp_path / "deep/raw")
    source = read(name, tmp_path / "fetched", options)
    assert content(source) == content(read(name, tmp_path / "scratch"))
    assert located(source)
    assert content(read(name, tmp_path / "fetched" / ARCHIVES[name], options)) == content(source)
    assert not list((tmp_path / "deep/raw").glob(".*"))


@pytest.mark.parametrize("name", ARCHIVES)
def test_without_a_folder_to_unpack_into_an_archive_is_refused(tmp_path, name):
    small.archives(name, tmp_path / "fetched", tmp_path / "scratch")
    before = tree(tmp_path)
    with pytest.raises(
        UserError, match=r"(gz|tar): an archive; unpack it and name that folder, or name one"
    ) as raised:
        read(name, tmp_path / "fetched")
    assert "\n" not in str(raised.value)
    assert tree(tmp_path) == before


def test_caltechs_zip_around_its_tar(tmp_path):
    packed = small.zip_caltech(tmp_path / "fetched", tmp_path / "scratch")
    source = read("caltech101", packed, Options(unpacked=tmp_path / "raw"))
    assert content(source) == content(read("caltech101", tmp_path / "scratch"))
    assert sorted(os.listdir(tmp_path / "raw/caltech-101")) == [MARK, "101_ObjectCategories"]
    whole = packed.read_bytes()
    for number, cut in enumerate((100, len(whole) // 2, len(whole) - 10)):
        packed.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"caltech-101\.zip: cut off or damaged"):
            unpack(packed, tmp_path / str(number), small.TAR)
    with zipfile.ZipFile(packed, "w") as other:
        other.writestr("caltech-101/show_annotation.m", "function")
    with pytest.raises(UserError, match=r"damaged \(no 101_ObjectCategories\.tar\.gz in it\)"):
        unpack(packed, tmp_path / "other", small.TAR)


def test_an_archive_of_something_else_says_what_it_lacks(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path = small.pack(tmp_path / "CUB_200_2011.tgz", tmp_path, "elsewhere")
    with pytest.raises(
        UserError, match=r"CUB_200_2011\.tgz: holds no CUB_200_2011/images\.txt; fetch it from"
    ):
        read("cub200", path, Options(unpacked=tmp_path / "raw"))


@pytest.fixture
def birds(tmp_path):
    """The archive of CUB, and what is in it."""
    small.archives("cub200", tmp_path / "fetched", tmp_path / "scratch")
    return tmp_path / "fetched/CUB_200_2011.tgz", tree(tmp_path / "scratch")


def test_unpacked_once(birds, tmp_path):
    path, inside = birds
    folder = unpack(path, tmp_path / "raw")
    assert tree(folder) == inside
    size = path.stat().st_size
    path.write_bytes(bytes(size))  # the same name and size: nobody looks inside again
    assert unpack(path, tmp_path / "raw") == folder
    path.write_bytes(bytes(size + 1))
    with pytest.raises(
        UserError, match=rf"was unpacked from CUB_200_2011\.tgz {size} bytes, not .*; remove it"
    ):
        unpack(path, tmp_path / "raw")
    assert tree(folder) == inside


def test_a_folder_that_is_somebody_elses_is_left_alone(birds, tmp_path):
    (tmp_path / "raw/CUB_200_2011").mkdir(parents=True)
    (tmp_path / "raw/CUB_200_2011/mine.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"is there already, and was not unpacked from .* name it itself as the root"
    ):
        unpack(birds[0], tmp_path / "raw")
    assert tree(tmp_path / "raw") == {"CUB_200_2011": None, "CUB_200_2011/mine.txt": b"mine"}
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot be unpacked into .*/file \(File exists\)"):
        unpack(birds[0], tmp_path / "file")


def test_an_interrupted_run_leaves_nothing_that_looks_whole(birds, tmp_path, monkeypatch):
    path, inside = birds
    with monkeypatch.context() as patch:
        patch.setattr(archive.Bar, "advance", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            unpack(path, tmp_path / "raw")
    assert tree(tmp_path / "raw") == {}
    for name, age in (("old", 2 * archive.STALE), ("young", 60)):  # killed: nobody could tidy up
        (tmp_path / f"raw/.part-{name}/CUB_200_2011").mkdir(parents=True)
        os.utime(tmp_path / f"raw/.part-{name}", (time.time() - age,) * 2)
    assert tree(unpack(path, tmp_path / "raw")) == inside
    assert sorted(os.listdir(tmp_path / "raw")) == [".part-young", "CUB_200_2011"]


def test_several_at_once_end_with_one_whole_folder(birds, tmp_path):
    path, inside = birds
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(unpack(path, tmp_path / "raw"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "raw/CUB_200_2011"] * 4
    assert tree(found[0]) == inside
    assert os.listdir(tmp_path / "raw") == ["CUB_200_2011"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder with CUB as .tgz and as .tar, and in scratch what is in them."""
    root = tmp_path_factory.mktemp("packed")
    small.archives("cub200", root, root / "scratch")
    small.pack(root / "CUB_200_2011.tar", root / "scratch", "attributes.txt", "CUB_200_2011")
    return root


def refused(root: Path, name: str, damaged: bytes) -> bool:
    """Whether it is a user's mistake, of which nothing is left; else it must be what was published."""
    path = root / "damaged" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(damaged)
    try:
        folder = unpack(path, root / "raw")
    except UserError as error:
        assert str(error).startswith(f"{path}: cut off or damaged (")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        assert tree(root / "raw") == {}
        return True
    assert tree(folder) == tree(root / "scratch")
    shutil.rmtree(folder)
    return False


def test_a_tar_cut_anywhere_is_refused(packed):
    whole = (packed / "CUB_200_2011.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        starts = [member.offset for member in tar]  # where tarfile itself takes the cut for the end
    for cut in [*starts, *(start + 512 for start in starts), *(start + 100 for start in starts)]:
        assert refused(packed, "CUB_200_2011.tar", whole[:cut])


def test_a_damaged_header_is_not_the_end_of_the_archive(packed):
    damaged = bytearray((packed / "CUB_200_2011.tar").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(damaged)) as tar:
        members = tar.getmembers()
    damaged[members[-1].offset_data - 500] ^= 1
    with tarfile.open(fileobj=io.BytesIO(damaged)) as tar:
        assert len(tar.getmembers()) == len(members) - 1  # tarfile says nothing
    assert refused(packed, "CUB_200_2011.tar", bytes(damaged))


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_compressed_tar_cut_anywhere_is_refused(packed, share):
    whole = (packed / "CUB_200_2011.tgz").read_bytes()
    assert refused(packed, "CUB_200_2011.tgz", whole[: int(share * len(whole))])


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_does_not_matter(packed, share, change):
    damaged = bytearray((packed / "CUB_200_2011.tgz").read_bytes())
    damaged[int(share * len(damaged))] ^= change
    refused(packed, "CUB_200_2011.tgz", bytes(damaged))


def write(path: Path, *members: tuple[str, bytes, str]) -> Path:
    """A tar of (name, kind, target or content)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(target)
            else:
                member.linkname = target
            tar.addfile(member, io.BytesIO(target.encode()))
    return path


FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE = {
    "up": [("images/../../../evil", FILE, "x")],
    "link up": [("images/a", LINK, "../../../evil"), ("images/a/b", FILE, "x")],
    "absolute link": [("a", LINK, "/etc/passwd")],
    "hard link up": [("a", HARD, "../../evil")],
    "absolute hard link": [("a", HARD, "/etc/passwd")],
    "device": [("a", tarfile.CHRTYPE, "")],
    "pipe": [("a", tarfile.FIFOTYPE, "")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_reaches_outside_is_refused(tmp_path, kind):
    path = write(tmp_path / "CUB_200_2011.tgz", ("fine.txt", FILE, "x"), *HOSTILE[kind])
    (tmp_path / "evil").mkdir()
    before = {**tree(tmp_path), "raw": None}
    with pytest.raises(
        UserError, match=r"CUB_200_2011\.tgz: refused, its member '.*' would reach outside \(\w+\)"
    ):
        unpack(path, tmp_path / "raw")
    assert tree(tmp_path) == before


def test_links_within_are_left_out_so_nothing_goes_through_them(tmp_path):
    path = write(
        tmp_path / "CUB_200_2011.tgz",
        ("x/y/a", LINK, "../../z"),  # leads nowhere outside
        ("b", HARD, "x/y/a"),  # but a copy of it here would: Python 3.11.7 makes one
        ("b/evil", FILE, "evil"),
        ("/etc/absolute", FILE, "within"),
        (MARK, LINK, "etc/absolute"),
        ("x/y/a/file", FILE, "file"),
    )
    folder = unpack(path, tmp_path / "raw")
    files = {name for name, held in tree(folder).items() if held is not None}
    assert files == {"b/evil", "etc/absolute", "x/y/a/file"}
    assert not any(found.is_symlink() for found in folder.rglob("*"))
    assert (folder / "etc/absolute").read_text() == "within"
    assert sorted(os.listdir(tmp_path)) == ["CUB_200_2011.tgz", "raw"]
    assert unpack(path, tmp_path / "raw") == folder


def test_no_archive_at_all(tmp_path):
    for text in (b"", b"<html>404 not found</html>", b"\x1f\x8b\x08", bytes(10240)):
        path = tmp_path / "CUB_200_2011.tgz"
        path.write_bytes(text)
        with pytest.raises(UserError, match=r"cut off or damaged|holds no CUB_200_2011/images") as raised:
            read("cub200", path, Options(unpacked=tmp_path / f"raw{len(text)}"))
        assert "\n" not in str(raised.value)
