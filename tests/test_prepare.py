"""From a folder of raw pictures, odd and damaged ones among them, to an index that training can trust."""

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import ROOT, door, drawn_pictures
from odd_pictures import BAD, GOOD, as_pillow_reads, encoded, photograph, write_odd
from PIL import Image

from pipeline.config import Loading, Pictures, UserError
from pipeline.data import reader as reading
from pipeline.data.batches import evaluation_rows, training_rows
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.prepare import How, write_index
from pipeline.data.prepare.decode import Decoder
from pipeline.data.prepare.header import Place
from pipeline.data.reader import Reader
from pipeline.data.sources import Files, Inside, Pixels, Source

CPU = torch.device("cpu")


def source_of(root: Path, paths: list[str], **splits) -> Source:
    """One class; ``splits`` beside train as lists of paths."""
    parts = {"train": paths} | splits
    files = {name: Files(root, some, np.zeros(len(some), np.int64)) for name, some in parts.items()}
    return Source("odd", ["a"], files)


def test_verify_keeps_every_odd_picture_and_leaves_out_every_broken_one(tmp_path):
    names = write_odd(tmp_path / "raw")
    out = tmp_path / "index"
    summary = write_index(source_of(tmp_path / "raw", names), out, How(verify=True))
    split = open_index(out).split("train")
    assert {split.path(row) for row in range(len(split))} == set(GOOD)
    assert summary.kept == {"train": len(GOOD)}
    told = dict(line.split("\t")[1:] for line in (out / "rejected.tsv").read_text().splitlines())
    assert told == {name: reason for name, (_, reason) in BAD.items()}
    for row in range(len(split)):
        shape = as_pillow_reads(tmp_path / "raw" / split.path(row)).shape[:2]
        assert (split.heights[row], split.widths[row]) == shape, split.path(row)


def test_the_decoder_sees_what_pillow_sees(tmp_path):
    """EXIF's rotation is not applied, alpha is dropped, CMYK and YCCK and 16 bits become RGB of 8 bits."""
    write_odd(tmp_path)
    for name, pixels in zip(GOOD, Decoder().decode([(tmp_path / n).read_bytes() for n in GOOD]), strict=True):
        assert np.array_equal(pixels, as_pillow_reads(tmp_path / name)), name


def test_odd_pictures_train_and_evaluate(tmp_path):
    write_odd(tmp_path / "raw")
    write_index(source_of(tmp_path / "raw", sorted(GOOD)), tmp_path / "index", How(verify=True))
    split = open_index(tmp_path / "index").split("train")
    loader = Loader(split, Pictures(size=64, eval_resize=64), Loading(), CPU, True)
    (batch,) = loader.evaluation(evaluation_rows(len(split), len(split), 0, 1), len(split))
    assert batch.images.shape == (len(GOOD), 3, 64, 64)
    assert not batch.faults
    assert batch.images.isfinite().all()


def test_headers_alone_tell_what_is_no_picture_at_all(tmp_path):
    """Without --verify nothing is decoded: a file cut off in its body is found out in training."""
    names = write_odd(tmp_path / "raw")
    summary = write_index(source_of(tmp_path / "raw", names), tmp_path / "index")
    found_out_later = {"cut.jpg", "last_byte.jpg", "cut.png"}
    assert {path for _, path, _ in summary.rejected} == set(BAD) - found_out_later


@pytest.mark.parametrize("how", [How(), How(verify=True)])
def test_a_file_system_that_fails_is_no_bad_picture(tmp_path, monkeypatch, how):
    """A hiccup is asked again; one that stays ends the command in a line, and the same command goes on."""
    rng, raw = np.random.default_rng(6), tmp_path / "raw"
    raw.mkdir()
    names = [f"{number}.jpg" for number in range(4)]
    for name in names:
        (raw / name).write_bytes(encoded(photograph(rng, 40, 50)))
    monkeypatch.setattr(reading, "PAUSES", (0.0, 0.0))
    opened, left = Place.open, {}

    def fails(place: Place, row: int):
        if not left.get(row):
            return opened(place, row)
        left[row] -= 1
        return open("/proc/self/mem", "rb")  # its first page is never there: EIO

    monkeypatch.setattr(Place, "open", fails)
    left[1] = 3
    with pytest.raises(UserError) as told:
        write_index(source_of(raw, names), tmp_path / "index", how)
    assert str(told.value) == (
        f"{raw}/1.jpg: Input/output error, 3 times in a row; the same command goes on once it can be read"
    )
    left[1] = left[2] = 2
    summary = write_index(source_of(raw, names), tmp_path / "index", how)
    assert (summary.kept, summary.rejected) == ({"train": 4}, [])
    assert left == {1: 0, 2: 0}


def test_a_header_that_points_beyond_all_files_is_the_pictures_fault(tmp_path):
    """The system's error then, EINVAL, is no failure of the file system."""
    big = b"II+\0" + struct.pack("<HHQ", 8, 0, 2**63 - 1) + bytes(100)  # a BigTIFF
    (tmp_path / "big.tif").write_bytes(big)
    (tmp_path / "good.jpg").write_bytes(encoded(photograph(np.random.default_rng(0), 40, 50)))
    summary = write_index(source_of(tmp_path, ["big.tif", "good.jpg"]), tmp_path / "index")
    assert summary.rejected == [("train", "big.tif", "damaged: [Errno 22] Invalid argument")]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """600 small pictures in two classes, train and val; three are broken."""
    root, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for number in range(600):
        split, name = ("val" if number >= 500 else "train"), "ab"[number % 2]
        file = root / split / name / f"{number:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(photograph(rng, 60 + number % 50, 90)))
    for number in (10, 300, 420):
        file = root / "train" / "ab"[number % 2] / f"{number:03d}.jpg"
        file.write_bytes(file.read_bytes()[:-500])
    return root


PREPARE = """
from launch.prepare import main
from pipeline.data.prepare import chunks
chunks.UNPACKED_CHUNK = 50
main()
"""
"""launch.prepare, but results are kept after every 50 pictures that are not packed either, not after 4096."""


def prepare(root: Path, out: Path, *words: str) -> subprocess.Popen:
    words = ("-c", PREPARE, "imagefolder", "--root", str(root), "--out", str(out), *words)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], env=environment, **pipes)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    "words", [("--verify",), ("--pack", "--max-side", "80"), ("--pack", "--decoded", "--verify")]
)
def test_killed_anywhere_the_same_command_goes_on_and_ends_in_the_same_bytes(many, tmp_path, words):
    words = (*words, "--shard", "50")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    out, errors = prepare(many, straight, *words).communicate(timeout=900)
    assert "597 of 600 pictures, 2 classes (train 497, val 100)" in out, errors
    partial = tmp_path / "killed.partial"
    process = prepare(many, killed, *words)
    while len(list(partial.glob("*.rows"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    finished = {rows.stem for rows in partial.glob("*.rows")}
    assert 3 <= len(finished) < 12
    assert not killed.exists()
    shards = {file.name: file.stat().st_mtime_ns for file in partial.iterdir() if file.stem in finished}
    out, errors = prepare(many, killed, *words).communicate(timeout=900)
    assert "597 of 600" in out, errors
    assert contents(straight) == contents(killed)
    # Finished shards were not written again.
    now = {file.name: file.stat().st_mtime_ns for file in killed.iterdir()}
    assert {name: when for name, when in shards.items() if not name.endswith(".rows")}.items() <= now.items()
    assert not partial.exists()


def test_a_changed_plan_starts_anew(many, tmp_path):
    process = prepare(many, tmp_path / "out", "--pack", "--shard", "50")
    partial = tmp_path / "out.partial"
    while len(list(partial.glob("*.rows"))) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = prepare(many, tmp_path / "out", "--pack", "--max-side", "40", "--shard", "50")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    split = open_index(tmp_path / "out").split("train")
    assert max(split.heights.max(), split.widths.max()) == 40


def stopped_after_train(root: Path, train: Files, out: Path, how: How) -> Source:
    """A preparation that came to an end within val, whose only picture was an HTML page; it no longer is."""
    (root / "val.jpg").write_text("<html>")
    source = Source("two", ["a"], {"train": train, "val": Files(root, ["val.jpg"], np.zeros(1, np.int64))})
    with pytest.raises(UserError, match="none of 1 val pictures is usable"):
        write_index(source, out, how)
    (root / "val.jpg").write_bytes(encoded(photograph(np.random.default_rng(9), 40, 50)))
    return source


@pytest.mark.parametrize("how", [How(), How(verify=True), How(pack=True, decoded=True, shard=2)])
def test_pictures_that_changed_since_a_stopped_prepare_are_done_again(tmp_path, how):
    rng, raw, mount = np.random.default_rng(7), tmp_path / "raw", tmp_path / "mount"
    raw.mkdir()
    for number in range(8):
        (raw / f"{number}.jpg").write_bytes(encoded(photograph(rng, 40, 50 + number)))
    (raw / "8.jpg").symlink_to(mount / "8.jpg")  # not there yet
    (raw / "9.jpg").write_bytes(b"broken, and remains so")
    train = Files(raw, [f"{number}.jpg" for number in range(10)], np.zeros(10, np.int64))
    source = stopped_after_train(raw, train, tmp_path / "out", how)
    shards = {file.name: file.stat().st_ino for file in (tmp_path / "out.partial").glob("*.pixels")}

    mount.mkdir()
    (mount / "8.jpg").write_bytes(encoded(photograph(rng, 44, 44)))
    (raw / "3.jpg").write_bytes(encoded(photograph(rng, 60, 70)))
    same_size = (raw / "5.jpg").stat().st_size
    (raw / "5.jpg").write_bytes(encoded(photograph(rng, 20, 30)).ljust(same_size, b"\0"))
    summary = write_index(source, tmp_path / "out", how)
    assert summary.rejected == [("train", "9.jpg", "not a picture")]
    write_index(source, tmp_path / "straight", how)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    kept = sum(ino == (tmp_path / "out" / name).stat().st_ino for name, ino in shards.items())
    assert (kept >= 2) == how.pack, "of five shards at most three hold a picture that changed"


def test_results_that_a_nodes_end_cut_off_are_made_again(tmp_path):
    rng, raw, how = np.random.default_rng(8), tmp_path / "raw", How(pack=True, shard=2)
    raw.mkdir()
    for number in range(10):
        (raw / f"{number}.jpg").write_bytes(encoded(photograph(rng, 40, 50 + number)))
    train = Files(raw, [f"{number}.jpg" for number in range(10)], np.zeros(10, np.int64))
    source = stopped_after_train(raw, train, tmp_path / "out", how)
    empty, cut, whole, beheaded, lost = sorted((tmp_path / "out.partial").glob("train-*.rows"))
    empty.write_bytes(b"")
    cut.write_bytes(whole.read_bytes()[:-100])
    with pa.ipc.open_stream(beheaded) as stream, pa.OSFile(str(beheaded), "wb") as file:
        pa.ipc.new_stream(file, stream.schema).close()
    lost.with_suffix(".tar").unlink()
    write_index(source, tmp_path / "out", how)
    write_index(source, tmp_path / "straight", how)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".arrow", ".json", ".tar", ".tsv"}


def test_a_mount_that_goes_away_costs_no_pictures(tmp_path):
    rng, mount = np.random.default_rng(9), tmp_path / "mount"
    mount.mkdir()
    for number in range(6):
        (mount / f"{number}.jpg").write_bytes(encoded(photograph(rng, 40, 50)))
    source = source_of(mount, [f"{number}.jpg" for number in range(6)])
    for number in (2, 5):
        (mount / f"{number}.jpg").rename(tmp_path / f"{number}.jpg")
    about = r"mount: 2 of 6 train pictures were listed and are not there \(2\.jpg: cannot be read: No such"
    with pytest.raises(UserError, match=about):
        write_index(source, tmp_path / "index", How(verify=True))
    assert not (tmp_path / "index").exists()
    (tmp_path / "2.jpg").rename(mount / "2.jpg")
    summary = write_index(source, tmp_path / "index", How(verify=True))
    assert (summary.kept, len(summary.rejected)) == ({"train": 5}, 1)


def test_an_archive_that_changed_since_a_stopped_prepare_is_read_again(tmp_path):
    """The same names at other places: old rows would point into the middle of the new one's pictures."""

    def archive(gap: int) -> Files:
        rng = np.random.default_rng(gap)
        pictures = [encoded(photograph(rng, 50 + number, 60)) for number in range(6)]
        offsets = np.cumsum([gap] + [len(each) + gap for each in pictures[:-1]])
        (tmp_path / "all.tar").write_bytes(b"".join(bytes(gap) + each for each in pictures))
        sizes = np.array([len(each) for each in pictures])
        inside = Inside(["all.tar"], np.zeros(6, np.int64), offsets, sizes)
        return Files(tmp_path, [f"{number}.jpg" for number in range(6)], np.zeros(6, np.int64), inside=inside)

    source = stopped_after_train(tmp_path, archive(7), tmp_path / "out", How(verify=True))
    splits = source.splits | {"train": archive(11)}
    for out in ("out", "straight"):
        write_index(Source("two", ["a"], splits), tmp_path / out, How(verify=True))
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_pointers_are_replaced_by_their_pictures_and_the_same_command_goes_on(tmp_path):
    """As git-LFS leaves them in a clone without ``git lfs pull``."""
    words = ("imagefolder", "--root", str(tmp_path / "raw"), "--out", str(tmp_path / "out"))
    files = [tmp_path / "raw" / "train" / name / f"{number}.jpg" for name in "ab" for number in range(3)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("version https://git-lfs.github.com/spec/v1\n")
    found = door("launch.prepare", *words)
    assert found.returncode == 2
    assert "none of 6 train pictures is usable (train/a/0.jpg: not a picture)" in found.stderr
    for file in files:
        file.write_bytes(encoded(photograph(np.random.default_rng(1), 40, 50)))
    found = door("launch.prepare", *words)
    assert "6 of 6 pictures, 2 classes (train 6)" in found.stdout, found.stderr


def test_the_folder_that_one_is_in_may_become_the_index(many, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = door("launch.prepare", "imagefolder", "--root", str(many), "--out", ".")
    assert "600 of 600 pictures" in found.stdout, found.stderr
    assert len(open_index(tmp_path / "here").split("train")) == 500
    monkeypatch.chdir(many)
    found = door("launch.prepare", "imagefolder", "--root", str(many), "--out", ".")
    last = found.stderr.splitlines()[-1]
    assert last == f"error: --out {many}: not empty and not an index; give a new folder"


def test_a_second_prepare_is_kept_out(many, tmp_path):
    first = prepare(many, tmp_path / "out", "--pack", "--quality", "80", "--shard", "20")
    while not list((tmp_path / "out.partial").glob("*.rows")) and first.poll() is None:
        time.sleep(0.002)
    source = source_of(many, ["train/a/000.jpg"])
    with pytest.raises(UserError, match="another process prepares this index"):
        write_index(source, tmp_path / "out")
    _, errors = first.communicate(timeout=900)
    assert first.returncode == 0, errors


def test_duplicates_across_splits_are_told_and_dropped(tmp_path):
    rng, raw = np.random.default_rng(1), tmp_path / "raw"
    raw.mkdir()
    pictures = [encoded(photograph(rng, 40, 50)) for _ in range(4)]
    for name, which in {"t0": 0, "t1": 1, "t2": 2, "t3": 0, "v0": 2, "v1": 3, "e0": 0}.items():
        (raw / f"{name}.jpg").write_bytes(pictures[which])
    source = source_of(raw, [f"t{i}.jpg" for i in range(4)], val=["v0.jpg", "v1.jpg"], test=["e0.jpg"])
    pairs = {("t2.jpg", "val", "v0.jpg"), ("t0.jpg", "test", "e0.jpg"), ("t3.jpg", "test", "e0.jpg")}
    summary = write_index(source, tmp_path / "told", How(verify=True))
    assert (set(summary.duplicates), summary.dropped) == (pairs, 0)
    lines = (tmp_path / "told" / "duplicates.tsv").read_text().splitlines()
    assert {tuple(line.split("\t")) for line in lines} == pairs
    for how in (How(drop_duplicates=True), How(pack=True, drop_duplicates=True)):
        summary = write_index(source, tmp_path / "dropped", how)
        split = open_index(tmp_path / "dropped").split("train")
        assert [split.path(row) for row in range(len(split))] == ["t1.jpg"]
        assert (summary.kept, summary.dropped) == ({"train": 1, "val": 2, "test": 1}, 3)


def test_duplicates_of_raw_pictures_are_told_too(tmp_path):
    train, test = drawn_pictures(20, 5, 0), drawn_pictures(10, 5, 1)
    test.pixels[4] = train.pixels[7]
    summary = write_index(Source("drawn", list("abcde"), {"train": train, "test": test}), tmp_path / "index")
    assert summary.duplicates == [("train/7", "test", "test/4")]


def test_the_banner_at_the_bottom_is_never_shown(tmp_path):
    """Aircraft: 20 rows of pixels that say who owns the picture (and which aircraft it is)."""
    rng, pictures = np.random.default_rng(2), Pictures(size=64, scale=[0.9, 1.0], eval_resize=64)
    for number in range(8):
        pixels = np.array(photograph(rng, 100 + number, 120).convert("L").convert("RGB"))
        pixels[-20:] = (255, 0, 0)
        (tmp_path / f"{number}.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    paths = [f"{number}.png" for number in range(8)]
    files = Files(tmp_path, paths, np.zeros(8, np.int64), banner=20)
    source = Source("aircraft", ["a"], {"train": files})
    hows = {"plain": How(), "packed": How(pack=True), "decoded": How(pack=True, decoded=True)}
    for name, how in hows.items():
        write_index(source, tmp_path / name, how)
        split = open_index(tmp_path / name).split("train")
        assert split.heights.tolist() == [80 + number for number in range(8)]
        loader = Loader(split, pictures, Loading(), CPU, True)
        (batch,) = loader.evaluation(evaluation_rows(8, 8, 0, 1), 8)
        red = batch.images[:, 0] - batch.images[:, 1:].amax(dim=1)
        assert red.max() < 1, name  # gray; the banner's own is over 4
        beyond = Pictures(size=96, crop="pad", pad=4, eval_resize=None)
        loader = Loader(split, beyond, Loading(), CPU, True)
        (whole,) = loader.evaluation(evaluation_rows(8, 8, 0, 1), 8)
        (drawn,) = loader.training(training_rows(Order(8, 8, 0), 0, 1, 1, 0, 1), 8, 0)
        for batch in (whole, drawn):
            red = batch.images[:, 0] - batch.images[:, 1:].amax(dim=1)
            assert red.max() < 1, f"{name}, and the window reaches beyond the picture"


def test_pictures_inside_archives_are_read_in_place(tmp_path):
    """A file made of pictures one after the other, as a tar has them between its headers."""
    rng = np.random.default_rng(5)
    pictures = [encoded(photograph(rng, 50 + number, 60)) for number in range(6)]
    offsets = np.cumsum([7] + [len(each) + 7 for each in pictures[:-1]])
    (tmp_path / "all.tar").write_bytes(b"".join(b"header." + each for each in pictures))
    for number, each in enumerate(pictures):
        (tmp_path / f"{number}.jpg").write_bytes(each)
    paths, labels = [f"{number}.jpg" for number in range(6)], np.zeros(6, np.int64)
    inside = Inside(["all.tar"], np.zeros(6, np.int64), offsets, np.array([len(each) for each in pictures]))
    images = {}
    for name, how in {"headers": How(), "verified": How(verify=True), "packed": How(pack=True)}.items():
        for place in (inside, None):
            source = Source("six", ["a"], {"train": Files(tmp_path, paths, labels, inside=place)})
            write_index(source, tmp_path / name, how)
            split = open_index(tmp_path / name).split("train")
            loader = Loader(split, Pictures(size=32, eval_resize=32), Loading(), CPU, True)
            (batch,) = loader.evaluation(evaluation_rows(6, 6, 0, 1), 6)
            images[name, place is None] = (split.fingerprint, batch.images)
    first_print, first = images["headers", True]
    assert all(digest == first_print and torch.equal(each, first) for digest, each in images.values())


def test_a_million_rows_open_at_once_and_cost_a_rank_no_memory(tmp_path):
    """Opened in well under a second; the columns are views of the mapped file."""
    n = 1_000_000
    pixels = Pixels(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int64))
    write_index(Source("one", ["a"], {"train": pixels}), tmp_path / "index")
    script = Path(__file__).with_name("million_rows.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = [sys.executable, str(script), str(tmp_path / "index"), str(n)]
    subprocess.run([*run, "write"], env=environment, check=True)
    words = subprocess.run([*run, "open"], env=environment, check=True, capture_output=True, text=True)
    seconds, megabytes, row = words.stdout.split()
    assert row == "train/n00000999/n00999999.JPEG"
    assert float(seconds) < 1
    assert int(megabytes) < 20, "the table is 80 MB"


def test_more_shards_than_a_shell_lets_open(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(24):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(photograph(rng, 30, 30)))
    source = source_of(tmp_path, [f"{number}.jpg" for number in range(24)])
    write_index(source, tmp_path / "index", How(pack=True, shard=1))
    split = open_index(tmp_path / "index").split("train")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, hard))
    try:
        with Reader(split, 2) as reader:
            found = [picture for each in reader.ahead(np.arange(24)) for picture in each.result()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [len(picture) for picture in found] == split.places[2].tolist()


def test_mistakes_are_told_in_a_line(many, tmp_path):
    with pytest.raises(UserError, match="--max-side: says how pictures are packed; add --pack"):
        How(max_side=350)
    with pytest.raises(UserError, match="--decoded: says how"):
        How(decoded=True)
    with pytest.raises(UserError, match="--quality: of JPEGs, but --decoded stores pixels"):
        How(pack=True, decoded=True, quality=90)
    with pytest.raises(UserError, match="--quality 101: from 1 to 100"):
        How(pack=True, quality=101)
    words = ("imagefolder", "--root", str(many), "--out", str(tmp_path / "x"), "--pack", "--max-side", "-1")
    found = door("launch.prepare", *words)
    assert (found.returncode, found.stderr.strip()) == (2, "error: --max-side -1: at least 1 pixel")
    with pytest.raises(
        UserError, match="--out /proc: a mount point, which cannot be replaced; give a folder"
    ):
        write_index(source_of(many, ["train/a/000.jpg"]), Path("/proc"))
    bad = tmp_path / "bad"
    shutil.copytree(many / "train" / "a", bad / "a")
    for file in (bad / "a").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of \d+ train pictures is usable \(a/.*: empty\)"):
        write_index(source_of(bad, [f"a/{file.name}" for file in (bad / "a").iterdir()]), tmp_path / "none")
