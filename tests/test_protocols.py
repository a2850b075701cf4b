"""Protocols: found by name, never departed from silently, refused where they would choose on the test."""

import io
import os
from itertools import islice
from pathlib import Path

import downstream_small as small
import numpy as np
import pytest
import yaml
from conftest import ROOT, door
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import Dataset, Protocol, TransferConfig, UserError, dump, load, parse
from pipeline.config.protocol import SHIPPED, find
from pipeline.data.prepare import write_index
from pipeline.data.sources import Files, Options, Source, read
from pipeline.data.sources.caltech101 import BACKGROUND
from pipeline.data.sources.voc2007 import CLASSES as VOC_CLASSES
from pipeline.transfer.task import Task, draw

FIVE = SHIPPED / "five.yaml"
NAMES = {
    "caltech101": "caltech101-102",
    "caltech101-102": "caltech101-102",
    "caltech101-101": "caltech101-101",
    "caltech101-448": "caltech101-448",
    "voc2007-448": "voc2007-448",
    "voc2007": "voc2007-difficult-ignored",
    "voc2007-difficult-ignored": "voc2007-difficult-ignored",
    "voc2007-difficult-negative": "voc2007-difficult-negative",
    "voc2007-all-points": "voc2007-all-points",
    "cub200": "cub200",
    "cub200-448": "cub200-448",
    "aircraft": "aircraft",
    "cars": "cars",
}


def tree(**dataset) -> dict:
    whole = yaml.safe_load(FIVE.read_text())
    return whole | {"datasets": [{"index": "data/x"} | dataset]}


def written(folder: Path, content: dict, name: str = "config.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name


# --- found by name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", NAMES)
def test_a_shipped_protocol_is_found_and_says_its_name(asked):
    found = find(asked, None, "datasets.0.protocol")
    assert found["protocol"] == NAMES[asked]
    assert found["follows"]
    assert found["classes"]
    assert (
        parse(Protocol, {key: found[key] for key in Protocol.model_fields}, asked).source == found["source"]
    )


def test_the_five_in_one_config():
    config = load(TransferConfig, FIVE)
    assert [each.name for each in config.datasets] == ["caltech101", "voc2007", "cub200", "aircraft", "cars"]
    assert [each.protocol for each in config.datasets] == [NAMES[each.name] for each in config.datasets]
    assert [each.metric for each in config.datasets] == [
        "mean_per_class",
        "map_11point",
        "top1",
        "mean_per_class",
        "top1",
    ]
    for each in config.datasets:
        shown = each.resize.of(config.pictures)
        assert (shown.eval_resize, shown.evaluation_size, shown.interpolation) == (224, 224, "bicubic")
        assert each.resize_trained.of(config.pictures).eval_resize == 256
    variant = load(TransferConfig, FIVE, ["datasets.1.protocol=voc2007-difficult-negative"]).datasets[1]
    assert (variant.protocol, variant.difficult) == ("voc2007-difficult-negative", "negative")


@pytest.mark.parametrize(
    ("name", "steps", "batch", "rates", "decays"),
    [
        ("five", (5000, 10000), 64, ((1e-4, 1e-1, 4), (1e-3, 1.0, 4)), ((1e-6, 1e-3, 4), (1e-5, 1e-2, 3))),
        (
            "five_full",
            (20000, 40000),
            256,
            ((1e-4, 1e-1, 7), (1e-3, 1.0, 7)),
            ((1e-6, 1e-3, 7), (1e-5, 10**-1.5, 8)),
        ),
    ],
)
def test_grids_are_the_published_ones(name, steps, batch, rates, decays):
    """SimCLR B.8, and linusericsson/ssl-transfer finetune.py: log-spaced, none among finetuning's decays."""
    config = load(TransferConfig, SHIPPED / f"{name}.yaml")
    for recipe, length, rate, decay in zip(
        (config.finetuned, config.scratch), steps, rates, decays, strict=True
    ):
        assert (recipe.train.steps, recipe.train.epochs, recipe.train.batch) == (length, None, batch)
        assert (recipe.optim.nesterov, recipe.optim.momentum, recipe.optim.schedule) == (True, 0.9, "cosine")
        assert recipe.grid.lr == pytest.approx(np.geomspace(*rate), rel=1e-3)
        weak = [0.0] if recipe is config.finetuned else []
        assert recipe.grid.decay == pytest.approx([*weak, *np.geomspace(*decay)], rel=2e-3)


def test_448_pixels_for_all_five():
    config = load(TransferConfig, SHIPPED / "five_448.yaml")
    assert len(config.datasets) == 5
    for each in config.datasets:
        assert each.protocol.endswith("-448")
        assert (each.resize.crop, each.resize_trained.short_side, each.resize_trained.crop) == (448, 512, 448)
        assert each.resize_trained.of(config.pictures).size == 448
    recipe = config.finetuned
    assert (recipe.train.epochs, recipe.train.batch, recipe.train.label_smoothing) == (128, 64, 0.1)
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.nesterov) == (0.025, 5e-4, False)


def test_a_resolved_config_is_the_same_from_anywhere(tmp_path):
    own = {"follows": "me", "validation": 0.2, "variants": {"loss": {"choose_by": "loss"}}}
    written(tmp_path / "here", own, "mine.yaml")
    path = written(tmp_path / "here", tree(protocol="mine-loss"))
    config = load(TransferConfig, path)
    assert (config.datasets[0].protocol, config.datasets[0].choose_by) == ("mine-loss", "loss")
    (tmp_path / "there.yaml").write_text(dump(config))
    assert load(TransferConfig, tmp_path / "there.yaml") == config
    assert load(TransferConfig, written(tmp_path, yaml.safe_load(dump(load(TransferConfig, FIVE))))) == load(
        TransferConfig, FIVE
    )


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            {"protocol": "caltech-101"},
            r"datasets\.0\.protocol: no protocol 'caltech-101'; did you mean 'caltech101",
        ),
        ({"protocol": "voc2007-difficult"}, "did you mean 'voc2007-difficult-"),
        ({"protocol": "zzz"}, r"there are aircraft, aircraft-448, caltech101, caltech101-101"),
        (
            {"protocol": "cars", "metric": "mean_per_class"},
            r"datasets\.0\.metric: 'mean_per_class', but 'top1' in",
        ),
        (
            {"protocol": "aircraft", "classes": 102},
            r"datasets\.0\.classes: 102, but 100 in protocol aircraft",
        ),
        (
            {"protocol": "cub200", "test": "train"},
            r"datasets\.0\.test: 'train', but 'test' in protocol cub200",
        ),
        (
            {"name": "x", "validation": 0.2, "metric": "map"},
            r"datasets\.0\.metric: input should be 'top1', 'mean",
        ),
        ({"name": "x"}, r"datasets\.0\.validation: .* name a published split \(val: val\)"),
        ({"name": "x", "val": "val", "validation": 0.2}, r"datasets\.0\.validation: .*or else"),
        ({"name": "x", "validation": 2.5}, r"datasets\.0\.validation: 2\.5 is neither a share"),
        (
            {"name": "x", "validation": 0.2, "test": "train"},
            r"datasets\.0\.test: 'train' is also the training",
        ),
        ({"name": "x", "validation": 0.2, "train": "train+test"}, r"test: 'test' is also the training split"),
        ({"name": "x", "val": "test"}, r"datasets\.0\.test: 'test' is also what is chosen on"),
        ({"name": "x", "val": "train"}, r"datasets\.0\.val: 'train' is also the training split"),
        (
            {"name": "x", "val": "val", "test": "val+test"},
            r"datasets\.0\.test: 'val' is also what is chosen on",
        ),
        ({"name": "x", "validation": 0.2, "test": "rest"}, r"datasets\.0\.test: rest: needs per_class"),
        ({"name": "x", "val": "val", "test": "rest", "per_class": 3}, r"test: rest: goes with validation"),
        ({"name": "x", "val": "val", "metric": "map_11point"}, r"difficult: metric map_11point needs it"),
        ({"name": "x", "val": "val", "difficult": "ignored"}, r"difficult: metric top1 has no use for it"),
        (
            {"name": "x", "val": "val", "difficult": "ignored", "metric": "map_11point"},
            r"choose_by: top1 is of one label a picture",
        ),
        (
            {
                "name": "x",
                "validation": 0.2,
                "difficult": "ignored",
                "metric": "map_11point",
                "choose_by": "loss",
            },
            r"validation: is drawn by class",
        ),
    ],
)
def test_mistakes_are_a_line_that_names_the_key(tmp_path, dataset, message):
    with pytest.raises(UserError, match=message) as told:
        load(TransferConfig, written(tmp_path, tree(**dataset)))
    assert "\n" not in str(told.value)


def test_repetitions_and_names_are_free_and_names_must_differ(tmp_path):
    path = written(tmp_path, tree(protocol="cars", name="autos", seeds=5))
    (dataset,) = load(TransferConfig, path).datasets
    assert (dataset.name, dataset.protocol, dataset.seeds) == ("autos", "cars", 5)
    twice = tree(protocol="cars")
    twice["datasets"] *= 2
    with pytest.raises(UserError, match=r"datasets\.1\.name: 'cars' is another dataset's"):
        load(TransferConfig, written(tmp_path, twice))


def test_a_resize_that_cannot_be_is_refused():
    resize = {"short_side": 200, "crop": 224, "interpolation": "bicubic"}
    with pytest.raises(UserError, match=r"resize\.short_side: 200 is less than crop 224"):
        parse(Protocol, {"validation": 0.2, "resize": resize}, "x")


# --- what is drawn ----------------------------------------------------------------------------------------


def dataset(**keys) -> Dataset:
    return parse(Dataset, {"name": "x", "index": "x"} | keys, "x")


@given(st.integers(0, 2**31), st.lists(st.integers(31, 60), min_size=2, max_size=12))
def test_thirty_a_class_train_five_of_them_validate_and_the_rest_is_the_test(seed, sizes):
    """Caltech-101's rule, for any sizes of classes: no picture twice (ssl-transfer's list has doubles)."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    keys = {"train": "train+test", "test": "rest", "per_class": 30, "validation": 5 * len(sizes)}
    drawn = draw(dataset(classes=len(sizes), **keys), labels, len(labels), len(labels), seed)
    assert np.bincount(labels[drawn.fit]).tolist() == [25] * len(sizes)
    assert np.bincount(labels[drawn.chosen_on]).tolist() == [5] * len(sizes)
    whole = np.concatenate([drawn.fit, drawn.chosen_on, drawn.tested])
    assert np.array_equal(np.sort(whole), np.arange(len(labels))), "each once"


def test_draws_are_by_seed_and_not_the_first_of_each_class():
    labels = np.repeat(np.arange(5), 60)
    about = dataset(classes=5, train="train+test", test="rest", per_class=30, validation=0.2)
    first, second = (set(draw(about, labels, 300, 300, seed).rows.tolist()) for seed in (0, 1))
    assert first != second
    assert first != set(np.flatnonzero(np.arange(300) % 60 < 30).tolist())


def test_of_joined_splits_the_same_pictures_are_drawn_however_they_were_divided(tmp_path):
    """Caltech-101's 30 a class, whose index launch.prepare --seed divides."""
    names = [f"{number}.png" for number in range(24)]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(tmp_path / name)
    drawn = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(24)
        parts = {"train": order[:16], "test": order[16:]}
        splits = {part: Files(tmp_path, [names[i] for i in rows], rows % 2) for part, rows in parts.items()}
        write_index(Source("drawn", ["even", "odd"], splits), tmp_path / f"index{seed}")
        about = {"name": "x", "index": str(tmp_path / f"index{seed}"), "train": "train+test", "test": "rest"}
        dataset = Dataset(**about, per_class=5, validation=0.4, seeds=1)
        task = Task.open(dataset, 7, "datasets.0")
        (numbers,) = task.draws
        rows = (numbers.rows, numbers.fit, numbers.chosen_on, numbers.tested)
        drawn.append([[task.learned.path(row) for row in each] for each in rows])
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(drawn[0][0]) == 10


def test_a_published_validation_split_is_the_same_for_every_seed():
    about = dataset(val="val", classes=2)
    drawn = [draw(about, np.arange(10) % 2, 6, 4, seed) for seed in (0, 1)]
    for each in drawn:
        assert (each.fit.tolist(), each.chosen_on.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9])
        assert each.tested.tolist() == [0, 1, 2, 3]


# --- published sizes, from whole collections in their true layout ------------------------------------------


class Linked:
    """One tiny picture under many names."""

    def __init__(self, folder: Path):
        self.picture = folder / "picture.jpg"
        buffer = io.BytesIO()
        Image.new("RGB", (3, 40)).save(buffer, "JPEG")
        self.picture.write_bytes(buffer.getvalue())

    def __call__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # trainval names them all again
            os.link(self.picture, path)


def whole(name: str, root: Path) -> None:
    """As many pictures and classes as were published; which class a picture is of goes round."""
    link = Linked(root)
    if name == "caltech101":
        counts = {f"class{number:03d}": 85 + (number < 92) for number in range(101)}
        small.caltech101(root, {BACKGROUND: 467} | counts, link)
    elif name == "voc2007":
        numbers = iter(range(1, 9964))
        content = {
            split: {
                f"{number:06d}": ([VOC_CLASSES[number % 20]], [VOC_CLASSES[number // 20 % 20]])
                for number in islice(numbers, count)
            }
            for split, count in {"train": 2501, "val": 2510, "test": 4952}.items()
        }
        small.voc2007(root, content=content, draw=link)
    elif name == "cub200":
        birds = [f"{number:03d}.Bird_{number}" for number in range(1, 201)]
        small.cub200(root, birds, {n: (1 + n % 200, int(n <= 5994)) for n in range(1, 11789)}, link)
    elif name == "aircraft":
        variants = [f"Variant {number}" for number in range(100)]
        numbers = np.split(np.arange(10_000), [3334, 6667])
        content = {
            split: {f"{n:07d}": variants[n % 100] for n in each}
            for split, each in zip(("train", "val", "test"), numbers, strict=True)
        }
        small.aircraft(root, variants, content, link)
    else:
        content = {"train": [1 + n % 196 for n in range(8144)], "test": [1 + n % 196 for n in range(8041)]}
        small.cars(root, [f"Car {number}" for number in range(196)], content, link)


PUBLISHED = {  # BYOL (arXiv:2006.07733), Table 10; CUB's training pictures are parted here
    "caltech101": (2550, 510, 6084),
    "voc2007": (2501, 2510, 4952),
    "aircraft": (3334, 3333, 3333),
    "cars": (6494, 1650, 8041),
    "cub200": (4994, 1000, 5794),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_splits_have_their_published_sizes(name, tmp_path):
    whole(name, tmp_path)
    write_index(read(name, tmp_path), tmp_path / "index")
    about = parse(Dataset, {"name": name, "index": str(tmp_path / "index")} | find(name, None, ""), name)
    task = Task.open(about, 0, "datasets.0")
    assert len(task.draws) == 3
    for number, drawn in enumerate(task.draws):
        assert (len(drawn.fit), len(drawn.chosen_on), len(drawn.tested)) == PUBLISHED[name]
        assert len(task.training(number)) == len(drawn.fit) + len(drawn.chosen_on)
        assert len(task.test(number)) == len(drawn.tested)
        train, test = (
            set(split.table["path"].to_pylist()) for split in (task.training(number), task.test(number))
        )
        assert not train & test
    if name == "caltech101":
        paths = [set(task.test(number).table["path"].to_pylist()) for number in range(3)]
        assert len({frozenset(each) for each in paths}) == 3, "another split for every seed"
        labels = task.learned.labels[task.draws[0].fit]
        assert np.bincount(labels).tolist() == [25] * 102


# --- an index that is not the protocol's ------------------------------------------------------------------


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """Small ones: Caltech-101 with three classes and with two, VOC 2007, and of CUB."""
    root = tmp_path_factory.mktemp("indexes")
    small.caltech101(root / "caltech")
    small.voc2007(root / "voc")
    small.cub200(root / "cub")
    for name, source in {
        "102": read("caltech101", root / "caltech"),
        "101": read("caltech101", root / "caltech", Options(background=False)),
        "voc": read("voc2007", root / "voc"),
        "cub": read("cub200", root / "cub"),
    }.items():
        write_index(source, root / f"{name}.index")
    return root


@pytest.mark.parametrize(
    ("protocol", "index", "message"),
    [
        (
            "caltech101",
            "102",
            r"index: .*102\.index has 3 classes, protocol caltech101-102 has 102; give the index of all",
        ),
        ("caltech101", "101", r"was made from caltech101-101, protocol caltech101-102 is of caltech101-102"),
        ("aircraft", "cub", r"was made from cub200, protocol aircraft is of aircraft"),
        ("cub200", "nowhere", r"index: no index in .*nowhere\.index; make one: python -m launch\.prepare"),
    ],
)
def test_an_index_of_other_pictures_costs_a_line(indexes, protocol, index, message):
    about = {"name": protocol, "index": str(indexes / f"{index}.index")} | find(protocol, None, "")
    with pytest.raises(UserError, match=rf"^datasets\.2\..*{message}"):
        Task.open(parse(Dataset, about, "x"), 0, "datasets.2")


@pytest.mark.parametrize(
    ("keys", "index", "message"),
    [
        ({"validation": 0.2}, "voc", r"metric: top1 wants one label a picture, .* has several"),
        (
            {"val": "test", "test": "train", "train": "val", "metric": "map_11point"}
            | {"difficult": "ignored", "choose_by": "loss"},
            "cub",
            r"no split 'val'",
        ),
        ({"validation": 10}, "cub", r"validation: 10 of 5 training pictures leave none"),
        ({"validation": 0.2, "per_class": 9}, "cub", r"per_class: class 0 has 2 pictures"),
    ],
)
def test_pictures_that_the_protocol_cannot_have(indexes, keys, index, message):
    about = dataset(**keys).model_copy(update={"index": str(indexes / f"{index}.index")})
    with pytest.raises(UserError, match=rf"^datasets\.0\..*{message}"):
        Task.open(about, 0, "datasets.0")


def test_difficult_ones_are_left_out_or_negative(indexes):
    about = {"name": "voc", "index": str(indexes / "voc.index")} | find("voc2007", None, "")
    ignored = Task.open(parse(Dataset, about, "x"), 0, "d")
    negative = Task.open(parse(Dataset, about | {"difficult": "negative"}, "x"), 0, "d")
    raw = ignored.training(0).labels
    assert (raw == 0).any()
    assert np.array_equal(ignored.labels(ignored.pool), ignored.pool.labels)
    told = negative.training(0)
    assert np.array_equal(told.labels, np.where(raw == 0, -1, raw))
    assert told.fingerprint != ignored.training(0).fingerprint
    assert told.labels.dtype == np.int8
    assert not (negative.labels(negative.pool) == 0).any()


def test_the_door_tells_mistakes_in_a_line(tmp_path):
    for words, message in {
        (f"datasets={[{'protocol': 'caltech'}]}",): "no protocol 'caltech'; did you mean 'caltech101'",
        (
            "datasets.0.metric=top1",
        ): "datasets.0.metric: 'top1', but 'mean_per_class' in protocol caltech101-102",
    }.items():
        got = door("launch.transfer", str(ROOT / "configs/transfer/five.yaml"), *words)
        assert got.returncode == 2, got.stderr
        assert got.stderr.count("\n") == 1, got.stderr
        assert message in got.stderr
