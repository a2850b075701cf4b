"""The real DALI loader: Pillow's pixels, the plan's pictures, the same batches for any number of ranks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pipeline.config import Loading, Pictures, UserError
from pipeline.data import geometry
from pipeline.data.batches import evaluation_rows, training_rows
from pipeline.data.index import open_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.prepare import write_index
from pipeline.data.sources import Files, Source

CPU = torch.device("cpu")
SMALL = Pictures(size=32, crop="pad", pad=4, eval_resize=None)


def photograph(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Smooth shapes with some fine grain: like a photograph, neither flat nor pure noise."""
    coarse = Image.fromarray(rng.integers(0, 255, (height // 20 + 2, width // 20 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.BICUBIC), np.float32)
    return Image.fromarray((smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """An index of 24 picture files of many shapes and kinds."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(4)
    paths = []
    for number in range(24):
        picture = photograph(rng, int(rng.integers(80, 500)), int(rng.integers(80, 600)))
        kind = ("jpg", "png", "webp", "gray.jpg", "cmyk.jpg", "palette.png")[number % 6]
        mode = {"gray.jpg": "L", "cmyk.jpg": "CMYK", "palette.png": "P"}.get(kind, "RGB")
        paths.append(f"{number}.{kind}")
        picture.convert(mode).save(root / paths[-1], quality=93)
    pictures = Files(root, paths, np.arange(24) % 4)
    write_index(Source("photographs", list("abcd"), {"train": pictures}), root / "index")
    return open_index(root / "index").split("train")


def pixels(images: torch.Tensor, pictures: Pictures) -> np.ndarray:
    """(b, 3, S, S) normalised to (b, S, S, 3) in 0..255."""
    mean, std = (torch.tensor(values) for values in (pictures.mean, pictures.std))
    return ((images.permute(0, 2, 3, 1) * std + mean) * 255).numpy()


def opened(split, row: int) -> Image.Image:
    return Image.open(split.paths([row])[0]).convert("RGB")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_pixels_are_torchvisions(photographs, interpolation):
    """To the bit what torchvision's transforms make of Pillow's pixels as uint8 tensors.

    Scaled by Pillow itself: bilinear at most 1 of 255 away, where the two round; bicubic, in palette
    pictures with their hard edges, 6, where one clips an overshoot that the other keeps.
    """
    pictures = Pictures(interpolation=interpolation)
    mode = v2.InterpolationMode[interpolation.upper()]
    reference = v2.Compose([v2.Resize(256, mode, antialias=True), v2.CenterCrop(224)])
    loader = Loader(photographs, pictures, Loading(), CPU, True)
    (batch,) = loader.evaluation(evaluation_rows(len(photographs), 24, 0, 1), 24)
    for row, ours in zip(batch.rows, pixels(batch.images, pictures), strict=True):
        picture, path = opened(photographs, row), photographs.paths([row])[0]
        theirs = reference(v2.functional.pil_to_tensor(picture)).permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).max() < 1e-3, path
        pillow = np.asarray(reference(picture), np.float32)
        assert np.abs(ours - pillow).max() <= (1.001 if interpolation == "bilinear" else 6.1), path
        assert np.abs(ours - pillow).mean() < 0.25, path


def test_training_pixels_are_torchvisions(photographs):
    """To the bit what torchvision's ``resized_crop`` makes of the planned windows, mirrored as planned."""
    pictures, order = Pictures(), Order(len(photographs), 12, 8)
    loader = Loader(photographs, pictures, Loading(), CPU, True)
    flips = 0
    for step, batch in enumerate(loader.training(training_rows(order, 0, 1, 1, 0, 4), 12, 8)):
        rows, epochs = order.piece(step, 0, 1)
        assert np.array_equal(batch.rows, rows)
        assert np.array_equal(batch.labels.numpy(), photographs.labels[rows])
        shapes = photographs.heights[rows], photographs.widths[rows]
        planned = geometry.for_training(pictures, 8, rows, epochs, *shapes)
        for number, ours in enumerate(pixels(batch.images, pictures)):
            whole = v2.functional.pil_to_tensor(opened(photographs, rows[number]))
            window = [int(value) for value in planned.window[number]]
            theirs = v2.functional.resized_crop(whole, *window, [224, 224], antialias=True)
            theirs = theirs.flip(2) if planned.flip[number] else theirs
            flips += int(planned.flip[number])
            path = photographs.paths([rows[number]])[0]
            assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() < 1e-3, path
    assert 10 < flips < 38


@pytest.mark.parametrize(("colour", "beyond"), [("black", [0, 0, 0]), ("mean", [26, 128, 204])])
def test_raw_pictures_are_padded_and_cut_exactly(colour, beyond, small_index):
    pictures = SMALL.model_copy(update={"pad_colour": colour, "mean": [0.1, 0.5, 0.8]})
    if colour == "mean":  # and nothing is mirrored in the first epoch, in the second all
        pictures = pictures.model_copy(update={"flip": 0.0, "flip_alternately": True})
    split, order = open_index(small_index).split("train"), Order(250, 50, 3)
    loader = Loader(split, pictures, Loading(), CPU, False)
    for step, batch in enumerate(loader.training(training_rows(order, 0, 1, 1, 4, 6), 50, 3), 4):
        rows, epochs = order.piece(step, 0, 1)
        planned = geometry.for_training(pictures, 3, rows, epochs, split.heights[rows], split.widths[rows])
        assert colour == "black" or set(planned.flip) == set(epochs) == {step - 4}
        padded = np.empty((len(rows), 40, 40, 3), np.uint8)
        padded[:] = beyond
        padded[:, 4:36, 4:36] = split.pixels[rows]
        for number, ours in enumerate(pixels(batch.images, pictures)):
            top, left = planned.window[number, :2] + 4
            theirs = padded[number, top : top + 32, left : left + 32]
            theirs = theirs[:, ::-1] if planned.flip[number] else theirs
            assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("kind", ["files", "raw"])
def test_batches_are_bit_equal_for_any_number_of_ranks_and_restarts(kind, photographs, small_index):
    """Run at 2 ranks, stopped after step 2, continued at 3 ranks x 2 accumulated: the pictures of 1 rank."""
    split = photographs if kind == "files" else open_index(small_index).split("train")
    pictures = Pictures(size=64) if kind == "files" else SMALL
    order = Order(len(split), 12, 21)

    def batches(world: int, accumulate: int, start: int, stop: int) -> list[torch.Tensor]:
        streams = []
        for rank in range(world):
            rows = training_rows(order, rank, world, accumulate, start, stop)
            loader = Loader(split, pictures, Loading(threads=1 + rank % 2), CPU, True)
            micro = [each.images for each in loader.training(rows, 12 // world // accumulate, 21)]
            streams.append([torch.cat(micro[i : i + accumulate]) for i in range(0, len(micro), accumulate)])
        return [torch.cat(step) for step in zip(*streams, strict=True)]

    undisturbed = batches(1, 1, 0, 5)
    for ours, theirs in zip(batches(2, 1, 0, 2) + batches(3, 2, 2, 5), undisturbed, strict=True):
        assert torch.equal(ours, theirs)


def test_channels_last_is_a_layout_not_another_batch(small_index):
    split = open_index(small_index).split("test")

    def first(channels_last: bool) -> torch.Tensor:
        loader = Loader(split, SMALL, Loading(), CPU, channels_last)
        return next(loader.evaluation(evaluation_rows(70, 10, 0, 1), 10)).images

    assert torch.equal(first(True), first(False))
    assert first(True).is_contiguous(memory_format=torch.channels_last)
    assert first(False).is_contiguous()


def test_a_batch_survives_the_ones_that_follow(small_index):
    """Batches are handed over without a copy; DALI must not write into one that is still held."""
    split = open_index(small_index).split("test")
    loader = Loader(split, SMALL, Loading(), CPU, True)
    held = [(each.images, each.images.clone()) for each in loader.evaluation(evaluation_rows(70, 7, 0, 1), 7)]
    assert len(held) == 10
    assert all(torch.equal(images, copy) for images, copy in held)


def test_evaluation_fills_up_with_weight_zero(small_index):
    split = open_index(small_index).split("test")
    loader = Loader(split, SMALL, Loading(), CPU, True)
    weights = [each.weight for each in loader.evaluation(evaluation_rows(70, 16, 1, 3), 16)]
    assert [int(weight.sum()) for weight in weights] == [16, 6]


def test_taken_rows_are_those_pictures_under_another_fingerprint(small_index, photographs):
    split = open_index(small_index).split("train")
    rows = np.array([200, 3, 3, 77])
    some = split.take(rows)
    assert np.array_equal(some.pixels[np.arange(4)], split.pixels[rows])
    assert np.array_equal(some.labels, split.labels[rows])
    assert len({split.fingerprint, some.fingerprint, split.take(rows[::-1]).fingerprint}) == 3
    assert photographs.take(rows[1:3]).paths([1]) == photographs.paths([3])


def test_index_mistakes_are_told_in_a_line(small_index, tmp_path):
    with pytest.raises(UserError, match=r"data\.index: no index in .*nowhere.*launch\.prepare"):
        open_index(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"data\.val: .* no split 'valid', only train, val, test"):
        open_index(small_index).split("valid", "data.val")
    for name in ("test-00000.pixels", "test.arrow"):
        broken = tmp_path / name
        broken.mkdir()
        for file in small_index.iterdir():
            content = file.read_bytes()
            (broken / file.name).write_bytes(content[:-100] if file.name == name else content)
        with pytest.raises(UserError, match=f"{name}: .*run launch.prepare again"):
            open_index(broken).split("test")


def test_prepare_lists_what_it_leaves_out_and_never_overwrites_a_strangers_folder(tmp_path):
    rng = np.random.default_rng(0)
    good = photograph(rng, 90, 120)
    good.save(tmp_path / "good.jpg")
    good.save(tmp_path / "moving.gif")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    paths = ["empty.jpg", "good.jpg", "moving.gif", "page.jpg"]
    source = Source("odd", ["a"], {"train": Files(tmp_path, paths, np.zeros(4, np.int64))})
    summary = write_index(source, tmp_path / "index")
    assert (summary.kept, len(summary.rejected)) == ({"train": 1}, 3)
    rejected = (tmp_path / "index" / "rejected.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in rejected] == ["empty.jpg", "moving.gif", "page.jpg"]
    split = open_index(tmp_path / "index").split("train")
    assert (split.heights[0], split.widths[0]) == (90, 120)
    assert write_index(source, tmp_path / "index").kept == {"train": 1}  # again, over itself
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UserError, match="not empty and not an index"):
        write_index(source, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
