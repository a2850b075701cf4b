"""Pictures packed into shards, encoded or decoded: the same order, crops and (where the same) pixels."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import drawn_pictures
from odd_pictures import encoded, photograph
from PIL import Image
from test_loader import pixels

from pipeline.config import Augment, Loading, Pictures, UserError
from pipeline.data import geometry
from pipeline.data.batches import Batch, training_rows
from pipeline.data.index import Split, open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.prepare import How, write_index
from pipeline.data.sources import Files, Source

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """40 pictures of many shapes: JPEG, PNG and WebP."""
    root, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(7)
    for number in range(40):
        picture = photograph(rng, int(rng.integers(60, 400)), int(rng.integers(60, 400)))
        kind = ("jpg", "jpg", "png", "webp")[number % 4]
        (root / f"{number:02d}.{kind}").write_bytes(encoded(picture, kind.replace("jpg", "jpeg").upper()))
    return root


def split_of(raw: Path, out: Path, how: How, **labels) -> Split:
    paths = sorted(file.name for file in raw.iterdir())
    files = Files(raw, paths, labels.get("labels", np.arange(40) % 4))
    write_index(Source("packed", list("abcd"), {"train": files}), out, how)
    return open_index(out).split("train", multilabel="labels" in labels)


def batches(split: Split, pictures: Pictures, steps: int = 6) -> list[Batch]:
    order = Order(len(split), 16, 5)
    loader = Loader(split, pictures, Loading(), CPU, True)
    return list(loader.training(training_rows(order, 0, 1, 1, 0, steps), 16, 5))


def test_packed_and_unpacked_give_the_same_bits(raw, tmp_path):
    """A run may even go on from one to the other: they are the same pictures by their fingerprint."""
    pictures = Pictures(size=96, augment=Augment(erase=0.3, mixup=0.2))
    plain = split_of(raw, tmp_path / "plain", How())
    packed = split_of(raw, tmp_path / "packed", How(pack=True, shard=15))
    assert plain.fingerprint == packed.fingerprint
    assert [file.name for file in packed.files] == [f"train-0000{number}.tar" for number in range(3)]
    for ours, theirs in zip(batches(packed, pictures), batches(plain, pictures), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert np.array_equal(ours.rows, theirs.rows)


def test_an_index_may_be_moved_with_its_shards_and_without_its_pictures(raw, tmp_path):
    split_of(raw, tmp_path / "here", How(pack=True))
    before = batches(open_index(tmp_path / "here").split("train"), Pictures(size=64), 1)
    (tmp_path / "here").rename(tmp_path / "there")
    after = batches(open_index(tmp_path / "there").split("train"), Pictures(size=64), 1)
    assert torch.equal(before[0].images, after[0].images)


def test_shards_are_tar_files_in_the_webdataset_layout(raw, tmp_path):
    split = split_of(raw, tmp_path / "packed", How(pack=True, shard=15))
    found, order = {}, []
    for shard in split.files:
        with tarfile.open(shard) as tar:
            for member in tar:
                key, extension = member.name.split(".")
                found.setdefault(int(key), {})[extension] = tar.extractfile(member).read()
                order.append(int(key))
        assert shard.stat().st_size % tarfile.RECORDSIZE == 0
    assert sorted(found) == list(range(40))
    assert order != sorted(order), "read one after another they must not come class by class"
    for row, parts in found.items():
        path = raw / split.path(row)
        assert parts[path.suffix[1:]] == path.read_bytes()
        assert int(parts["cls"]) == row % 4


def test_several_labels_a_picture_go_into_json(raw, tmp_path):
    labels = np.random.default_rng(0).integers(-1, 2, (40, 4)).astype(np.int8)
    split = split_of(raw, tmp_path / "many", How(pack=True), labels=labels)
    with tarfile.open(split.files[0]) as tar:
        told = {
            int(member.name[:9]): json.loads(tar.extractfile(member).read())["targets"]
            for member in tar
            if member.name.endswith(".json")
        }
    assert [told[row] for row in range(40)] == labels.tolist()
    assert np.array_equal(split.labels, labels)
    (batch, *_) = batches(split, Pictures(size=64), 1)
    assert np.array_equal(batch.labels.numpy(), labels[batch.rows])
    with pytest.raises(UserError, match=r"data\.train: .* has several labels a picture"):
        open_index(tmp_path / "many").split("train")


@pytest.mark.parametrize("decoded", [False, True])
def test_max_side_scales_down_and_never_up(raw, tmp_path, decoded):
    split = split_of(raw, tmp_path / "small", How(pack=True, max_side=200, decoded=decoded))
    for row in range(40):
        with Image.open(raw / split.path(row)) as picture:
            width, height = picture.size
        share = min(1, 200 / max(width, height))
        expected = (round(height * share), round(width * share))
        assert (split.heights[row], split.widths[row]) == expected


def test_pictures_within_max_side_are_not_encoded_again(raw, tmp_path):
    split = split_of(raw, tmp_path / "small", How(pack=True, max_side=200))
    content = split.files[0].read_bytes()
    _, offset, size = split.places
    kept = 0
    for row in range(40):
        stored = content[offset[row] : offset[row] + size[row]]
        original = (raw / split.path(row)).read_bytes()
        with Image.open(raw / split.path(row)) as picture:
            assert (stored == original) == (max(picture.size) <= 200)
            kept += stored == original
    assert 0 < kept < 40


def test_quality_writes_all_anew_as_jpegs(raw, tmp_path):
    sizes = {}
    for quality in (40, 95):
        split = split_of(raw, tmp_path / str(quality), How(pack=True, quality=quality))
        with tarfile.open(split.files[0]) as tar:
            assert {member.name.split(".")[1] for member in tar} == {"jpg", "cls"}
        sizes[quality] = split.places[2].sum()
    assert sizes[40] < 0.5 * sizes[95]


def test_decoded_pictures_have_the_windows_and_the_pixels_of_encoded_ones(raw, tmp_path):
    """Cut out of decoded pixels instead of decoded in part: the same pixels, the same scaling."""
    pictures = Pictures(size=96)
    plain = split_of(raw, tmp_path / "plain", How())
    decoded = split_of(raw, tmp_path / "decoded", How(pack=True, decoded=True, shard=15))
    assert decoded.decoded
    assert decoded.places[2].sum() == sum(file.stat().st_size for file in decoded.files)
    for ours, theirs in zip(batches(decoded, pictures), batches(plain, pictures), strict=True):
        assert np.array_equal(ours.rows, theirs.rows)
        assert torch.equal(ours.images, theirs.images)


def test_decoded_pictures_of_padded_windows_are_cut_by_numpy_alike(raw, tmp_path):
    pictures = Pictures(size=128, crop="pad", pad=8, eval_resize=None)
    split = split_of(raw, tmp_path / "decoded", How(pack=True, decoded=True))
    order = Order(40, 16, 5)
    for step, batch in enumerate(batches(split, pictures, 2)):
        rows, epochs = order.piece(step, 0, 1)
        planned = geometry.for_training(pictures, 5, rows, epochs, split.heights[rows], split.widths[rows])
        for number, ours in enumerate(pixels(batch.images, pictures)):
            whole = np.pad(split.pixels[rows[number : number + 1]][0], ((128, 128), (128, 128), (0, 0)))
            top, left = planned.window[number, :2] + 128
            theirs = whole[top : top + 128, left : left + 128]
            theirs = theirs[:, ::-1] if planned.flip[number] else theirs
            assert np.abs(ours - theirs).max() < 1e-3


def test_some_rows_of_decoded_pictures_are_those_rows(tmp_path):
    """In one shard: neighbours of another shape, whose bytes divide or not, are not read in their place."""
    rng, raw = np.random.default_rng(3), tmp_path / "raw"
    raw.mkdir()
    shapes = [((32, 32), (64, 64), (16, 64), (33, 20))[number % 4] for number in range(40)]
    for number, shape in enumerate(shapes):
        (raw / f"{number:02d}.png").write_bytes(encoded(photograph(rng, *shape), "PNG"))
    for several in (shapes[:3], shapes[:4]):
        rows = np.array([row for row in range(40) if shapes[row] in several])
        files = Files(raw, [f"{row:02d}.png" for row in rows], np.zeros(len(rows), np.int64))
        write_index(Source("mixed", ["a"], {"train": files}), tmp_path / "out", How(pack=True, decoded=True))
        split = open_index(tmp_path / "out").split("train")
        for shape in several:
            kept = np.array([place for place, row in enumerate(rows) if shapes[row] == shape])
            found = split.take(kept).pixels[np.arange(len(kept))]
            for picture, row in zip(found, rows[kept], strict=True):
                assert np.array_equal(picture, np.asarray(Image.open(raw / f"{row:02d}.png")))


def test_decoded_pictures_of_one_shape_are_one_gather(tmp_path):
    drawn = drawn_pictures(12, 3, 0)
    write_index(Source("drawn", list("abc"), {"train": drawn}), tmp_path / "index")
    some = open_index(tmp_path / "index").split("train").take([7, 2, 11])
    found = some.pixels[np.array([2, 0])]
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, drawn.pixels[[11, 7]])


def test_a_shard_whose_pictures_were_all_left_out_is_empty(tmp_path):
    picture = photograph(np.random.default_rng(4), 40, 50)
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture, "PNG") if number else b"no picture")
    files = Files(tmp_path, [f"{number}.png" for number in range(4)], np.zeros(4, np.int64))
    how = How(pack=True, decoded=True, shard=1)
    write_index(Source("four", ["a"], {"train": files}), tmp_path / "index", how)
    split = open_index(tmp_path / "index").split("train")
    assert sorted(file.stat().st_size for file in split.files) == [0, 6000, 6000, 6000]
    assert all(np.array_equal(each, np.asarray(picture)) for each in split.pixels[np.arange(3)])


def test_train_and_val_together_are_one_split_after_the_other(raw, tmp_path):
    paths = sorted(file.name for file in raw.iterdir())
    for how in (How(), How(pack=True, shard=7), How(pack=True, decoded=True, shard=7)):
        parts = {"train": paths[:25], "val": paths[25:]}
        splits = {name: Files(raw, some, np.arange(len(some)) % 4) for name, some in parts.items()}
        write_index(Source("two", list("abcd"), splits), tmp_path / "two", how)
        index = open_index(tmp_path / "two")
        both, whole = index.split("train+val"), split_of(raw, tmp_path / "one", how)
        assert [both.path(row) for row in range(40)] == paths
        assert len({both.fingerprint, index.split("train").fingerprint, index.split("val").fingerprint}) == 3
        pairs = (batches(split, Pictures(size=64), 2) for split in (both, whole))
        for ours, theirs in zip(*pairs, strict=True):
            assert torch.equal(ours.images, theirs.images)


def test_raw_pictures_are_not_packed_twice(tmp_path):
    drawn = Source("drawn", ["a"], {"train": drawn_pictures(3, 1, 0)})
    with pytest.raises(UserError, match="--pack: drawn's small pictures are stored as pixels anyway"):
        write_index(drawn, tmp_path / "x", How(pack=True))
