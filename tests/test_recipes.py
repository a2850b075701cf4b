"""The recipes in configs/: that each is what its header says, and what its source published."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import ROOT, command

from pipeline.config import Augment, TrainConfig, TransferConfig, load
from pipeline.models import build, cost
from pipeline.monitor.metrics import read_rows
from pipeline.train import run
from pipeline.train.optim import learning_rate, peak_rate
from pipeline.train.plan import Plan
from pipeline.train.ranks import join
from pipeline.train.weights import switches

PROTOCOLS = {
    f"configs/transfer/{name}.yaml" for name in ("caltech101", "voc2007", "cub200", "aircraft", "cars")
}
FILES = sorted({str(file.relative_to(ROOT)) for file in (ROOT / "configs").rglob("*.yaml")} - PROTOCOLS)
FILES = [file for file in FILES if "/study/" not in file]  # tests/test_study.py
TRANSFERS = [file for file in FILES if "transfer" in file]
TRAININGS = [file for file in FILES if file not in TRANSFERS]
RECIPES = [file for file in TRAININGS if "/demo/" not in file]
CIFAR = [file for file in RECIPES if "/cifar10/" in file]

# Published sizes: of ILSVRC 2012's training set, CIFAR-10's, and of the demo's six classes of it.
PICTURES = {"imagenet": 1_281_167, "cifar10": 50_000, "demo": 30_000}
CLASSES = {"imagenet": 1000, "cifar10": 10, "demo": 6}


def recipe(name: str, *overrides: str) -> TrainConfig:
    return load(TrainConfig, ROOT / "configs" / f"{name}.yaml", list(overrides))


def plan(name: str, config: TrainConfig, ranks: int = 1) -> Plan:
    return Plan.of(config, PICTURES[name.split("/")[-2]], ranks)


def rate(plan: Plan, step: int) -> float:
    config = plan.config
    return learning_rate(config.optim, step, plan.steps, plan.steps_per_epoch, config.train.batch)


# --- headers ----------------------------------------------------------------------------------------------


def header(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [line.removeprefix("#") for line in lines if line.startswith("#")]


def commands(file: str) -> list[str]:
    """A backslash at a line's end continues it, as in a shell."""
    lines = re.sub(r"\\\n +", "", "\n".join(header(file))).split("\n")
    return [line for line in lines if re.search(r"-m launch\.(tr|submit)|slurm/train\.sbatch", line)]


def ranks(line: str) -> int:
    """Of a torchrun, or of an sbatch with one rank per GPU."""

    def number(option: str) -> int:
        found = re.search(rf"--{option} (\d+)", line)
        return int(found[1]) if found else 1

    return number("nodes") * number("gpus-per-node") * number("nproc-per-node")


def overrides(text: str) -> list[str]:
    """As a shell hands them on, without quotes."""
    words = re.findall(r"(?<![\w.])[a-z_]+(?:\.[a-z_]+)+=\S+", text)
    return [word.rstrip(",;.)").replace("'", "") for word in words]


def labelled(file: str, label: str) -> list[str]:
    """The header's paragraphs that begin with ``label:``; a paragraph ends where another label begins."""
    text = "\n".join(header(file))
    return re.findall(rf"^ {label}: (.*?)(?=^ [A-Z]\w+[:,]|^   |\Z)", text, re.MULTILINE | re.DOTALL)


def test_headers_are_read_as_they_are_written():
    file = "configs/imagenet/resnet50_lars.yaml"
    assert [ranks(line) for line in commands(file)] == [16 * 8, 8]
    smaller, larger = labelled(file, "Batch")
    assert overrides(smaller) == ["train.batch=4096", "optim.lr=10", "train.epochs=42"]
    assert overrides(larger)[-1] == "train.epochs=58", "from the paragraph's second line"


@pytest.mark.parametrize("file", FILES)
def test_the_header_gives_a_command_for_this_very_file(file):
    assert any(file in line for line in commands(file))
    named = {path for line in commands(file) for path in re.findall(r"configs/\S+\.yaml", line)}
    assert named == {file}, "copied from another recipe?"


@pytest.mark.parametrize("file", FILES)
def test_every_override_in_the_header_is_one(file):
    schema = TransferConfig if file in TRANSFERS else TrainConfig
    as_written = load(schema, ROOT / file)
    for word in overrides("\n".join(header(file))):
        assert load(schema, ROOT / file, [word]) != as_written, f"{word} changes nothing"


@pytest.mark.parametrize("file", RECIPES)
def test_the_header_says_what_a_user_asks(file):
    text = "\n".join(header(file))
    for label in ("Nodes", "Batch", "Expected"):
        assert labelled(file, label), label
    assert "Time" in text
    assert re.search(r"[Nn]ot run (to its end )?here|run here", text), "was it run?"
    assert all(len(line) < 110 for line in header(file))


def test_no_two_recipes_share_a_run_and_each_is_named_as_its_file():
    for file in RECIPES:
        family, stem = Path(file).parts[-2], Path(file).stem
        assert load(TrainConfig, ROOT / file).name == f"{family}-{stem.replace('_', '-')}"


# --- that it can be run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", TRAININGS)
def test_the_net_builds_and_takes_every_size_of_picture(file):
    config = load(TrainConfig, ROOT / file)
    classes = CLASSES[Path(file).parent.name]
    with torch.device("meta"):
        model = build(config.model.name, classes, **switches(config.model))
    assert model.head.out_features == classes
    pictures = config.data.pictures
    sizes = {pictures.size, pictures.evaluation_size}
    if pictures.progressive is not None:
        sizes.add(pictures.progressive.start)
    assert all(cost(model, size)["macs"] > 0 for size in sizes)


@pytest.mark.parametrize("file", TRAININGS)
def test_the_documented_ranks_split_the_documented_batches(file):
    config = load(TrainConfig, ROOT / file)
    for line in commands(file):
        changed = load(TrainConfig, ROOT / file, overrides(line))
        assert plan(file, changed, ranks(line)).micro_batch * ranks(line) <= changed.train.batch
    most = max(ranks(line) for line in commands(file))
    for paragraph in labelled(file, "Batch"):
        changed = load(TrainConfig, ROOT / file, overrides(paragraph))
        assert plan(file, changed, most).micro_batch >= 1
    for world in (1, 8, 64):
        if config.train.batch % (world * config.train.accumulate) == 0:
            assert plan(file, config, world).steps == plan(file, config).steps


@pytest.mark.parametrize("file", [file for file in RECIPES if "/imagenet/" in file])
def test_the_documented_ranks_leave_batch_norm_enough_pictures(file):
    """Goyal et al. normalise over 32."""
    for line in commands(file):
        changed = load(TrainConfig, ROOT / file, overrides(line))
        assert plan(file, changed, ranks(line)).micro_batch >= 32, line


@pytest.mark.parametrize("name", ["five", "five_full", "five_448"])
def test_the_header_says_over_how_many_pictures_batch_norm_goes(name):
    file = f"configs/transfer/{name}.yaml"
    (line,) = commands(file)
    share = load(TransferConfig, ROOT / file).finetuned.train.batch // ranks(line)
    text = " ".join("".join(header(file)).split())
    assert f"Batch norm: over a rank's share of the batch, {share} pictures by the command above" in text


def test_the_hours_follow_from_the_rates():
    (time,) = labelled("configs/imagenet/resnet50.yaml", "Time")
    time = time.split("its README")[0]
    rates = [int(rate.replace(",", "")) for rate in re.findall(r"\d+,\d+", time)]
    hours = [f"{90 * PICTURES['imagenet'] / rate / 3600:.1f}" for rate in rates]
    assert hours == re.findall(r"\d+\.\d", time)


@pytest.mark.parametrize("file", TRANSFERS)
def test_transfers_are_of_checkpoints_that_a_recipe_leaves(file):
    left = {str(load(TrainConfig, ROOT / training).folder) for training in TRAININGS}
    assert load(TransferConfig, ROOT / file).checkpoint in left


# --- what the sources published ---------------------------------------------------------------------------

GOYAL = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet152_zero", "plain18", "plain34"]


@pytest.mark.parametrize("name", GOYAL)
@pytest.mark.parametrize("batch", [256, 1024, 8192])
def test_goyal_et_al(name, batch):
    """Section 5.1: 0.1 kn / 256, five epochs of warm-up, a tenth at epochs 30, 60 and 80 of 90."""
    found = plan(f"imagenet/{name}", recipe(f"imagenet/{name}", f"train.batch={batch}"))
    config, per_epoch = found.config, found.steps_per_epoch
    peak = 0.1 * batch / 256
    assert peak_rate(config.optim, batch) == pytest.approx(peak)
    assert rate(found, round(2.5 * per_epoch)) == pytest.approx(peak / 2, rel=0.01)
    for epoch, tenths in {5: 0, 29.9: 0, 30.1: 1, 59.9: 1, 60.1: 2, 79.9: 2, 80.1: 3, 89.9: 3}.items():
        assert rate(found, round(epoch * per_epoch)) == pytest.approx(peak / 10**tenths), epoch
    assert found.epoch(found.steps) == pytest.approx(90, abs=1 / per_epoch)
    assert (config.optim.name, config.optim.momentum, config.optim.nesterov) == ("sgd", 0.9, True)
    assert config.optim.weight_decay == 1e-4
    assert config.train.label_smoothing == 0
    bottleneck = name not in ("resnet18", "resnet34", "plain18", "plain34")
    assert config.model.zero_init == bottleneck, (
        "the others are pairs with plain nets, which have no such norm"
    )


@pytest.mark.parametrize("file", [file for file in CIFAR if not file.endswith("_fast.yaml")])
def test_he_et_al_on_cifar10(file):
    """Section 4.2: 64,000 steps of 128 pictures, 0.1, a tenth after 32,000 and 48,000."""
    found = plan(file, load(TrainConfig, ROOT / file))
    rates = [rate(found, step) for step in range(found.steps)]
    assert found.steps == pytest.approx(64_000, abs=1)
    falls = [step for step, (before, now) in enumerate(pairwise(rates), 1) if now < before]
    assert falls == pytest.approx([32_000, 48_000], abs=1)
    assert (max(rates), rates[-1]) == (0.1, pytest.approx(0.001))
    assert rates.index(0.1) == (pytest.approx(400, abs=1) if "110" in file else 0)
    optim = found.config.optim
    assert (optim.momentum, optim.nesterov, optim.weight_decay) == (0.9, False, 1e-4)
    assert found.config.data.pictures.pad == 4
    double = plan(file, load(TrainConfig, ROOT / file, ["train.batch=256"]))
    assert peak_rate(double.config.optim, 256) == 0.2


def test_ffcv_in_16_epochs():
    """libffcv/ffcv-imagenet, rn50_16_epochs.yaml and get_resolution; sides change there between epochs."""
    found = plan("imagenet/resnet50_fast", recipe("imagenet/resnet50_fast"), 8)
    assert found.micro_batch == 512
    last = [round(epoch * found.steps_per_epoch) - 1 for epoch in (1, 2, 9, 16)]  # steps of these epochs
    assert [rate(found, step) for step in last] == pytest.approx([0.85, 1.7, 0.85, 0], abs=0.002)
    sides = [found.side(round((epoch + 0.5) * found.steps_per_epoch)) for epoch in range(16)]
    assert sides == [160] * 12 + [192] * 4
    pictures = found.config.data.pictures
    assert (pictures.evaluation_size, pictures.eval_resize) == (256, round(256 * 256 / 224))
    assert (found.config.train.label_smoothing, found.config.optim.weight_decay) == (0.1, 1e-4)


def test_torchvisions_second_weights():
    """references/classification/train.py: the average keeps 1 - 2e-5 x batch x 32 / epochs every 32 steps."""
    name = "imagenet/resnet50_strong"
    (larger,) = labelled(f"configs/{name}.yaml", "Batch")
    for words in ([], overrides(larger)):
        config = recipe(name, *words)
        batch = config.train.batch
        assert peak_rate(config.optim, batch) == pytest.approx(0.5 * batch / 1024)
        assert config.train.ema**32 == pytest.approx(1 - 2e-5 * batch * 32 / 600, abs=2e-5)
    augment = {"policy": "trivial", "erase": 0.1, "mixup": 0.2, "cutmix": 1.0}
    assert config.data.pictures.augment == Augment(**augment)


@pytest.mark.parametrize(
    ("words", "total", "momentum", "decay"),
    [
        # Of mlcommons/logging's rcps_resnet.json. The decay steps of 8192 are counted after the warm-up.
        ([], 6095 + 5 * PICTURES["imagenet"] / 8192, 0.9, 2e-4),
        (["4096"], 13137, 0.9, 2e-4),
        (["32768"], 2267, 0.94, 2.5e-5),
    ],
)
def test_mlperfs_lars(words, total, momentum, decay):
    name = "imagenet/resnet50_lars"
    paragraphs = labelled(f"configs/{name}.yaml", "Batch")
    given = next((overrides(text) for text in paragraphs if words and words[0] in text), [])
    found = plan(name, recipe(name, *given))
    optim, batch = found.config.optim, found.config.train.batch
    assert found.steps == pytest.approx(total, rel=0.002)
    assert peak_rate(optim, batch) == {4096: 10, 8192: 17, 32768: 21.2}[batch], "searched for, never scaled"
    assert (optim.momentum, optim.weight_decay, optim.trust) == (momentum, decay, 0.001)


def test_torchvisions_vgg():
    found = plan("imagenet/vgg16_bn", recipe("imagenet/vgg16_bn"), 8)
    rates = [rate(found, round(epoch * found.steps_per_epoch)) for epoch in (0, 29.9, 30.1, 59.9, 60.1, 89.9)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_fast_means_a_quarter_of_the_papers_epochs():
    fast, paper = recipe("cifar10/resnet20_fast"), recipe("cifar10/resnet20")
    assert fast.train.epochs <= paper.train.epochs / 4
    assert fast.model == paper.model
    assert fast.data == paper.data
    wide = recipe("cifar10/resnet14_fast")
    assert wide.train.epochs <= paper.train.epochs / 7.5
    assert differences(wide.data.model_dump(), paper.data.model_dump()) == {
        "pictures.pad_colour",
        "pictures.flip_alternately",
    }


# --- fair experiments -------------------------------------------------------------------------------------


def differences(one: dict, other: dict, prefix: str = "") -> set[str]:
    """Dotted keys whose values differ between two configs of one schema."""
    found = set()
    for key in one:
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            found |= differences(one[key], other[key], f"{prefix}{key}.")
        elif one[key] != other[key]:
            found.add(prefix + key)
    return found


@pytest.mark.parametrize(
    ("one", "other", "allowed"),
    [
        ("imagenet/plain18", "imagenet/resnet18", {"model.name"}),
        ("imagenet/plain34", "imagenet/resnet34", {"model.name"}),
        ("imagenet/plain18", "imagenet/plain34", {"model.name"}),
        ("cifar10/plain20", "cifar10/resnet20", {"model.name"}),
        ("cifar10/plain56", "cifar10/resnet56", {"model.name"}),
        ("cifar10/plain20", "cifar10/plain56", {"model.name"}),
        ("cifar10/resnet20", "cifar10/resnet32", {"model.name"}),
        ("cifar10/resnet20", "cifar10/resnet44", {"model.name"}),
        ("cifar10/resnet20", "cifar10/resnet110", {"model.name", "optim.warmup"}),
        ("imagenet/resnet50", "imagenet/resnet101", {"model.name"}),
        ("imagenet/resnet50", "imagenet/resnet152", {"model.name"}),
        ("imagenet/resnet152", "imagenet/resnet152_zero", {"engine", "deepspeed.stage"}),
        ("imagenet/resnet50", "imagenet/resnet50_features", {"optim.schedule", "optim.milestones"}),
    ],
)
def test_what_is_compared_differs_in_one_thing_only(one, other, allowed):
    assert differences(recipe(one).model_dump(), recipe(other).model_dump()) == allowed | {"name"}


@pytest.mark.parametrize("name", ["resnet50", "resnet50_features"])
def test_features_are_trained_on_plain_cross_entropy(name):
    config = recipe(f"imagenet/{name}")
    assert config.train.label_smoothing == 0
    assert config.data.pictures.augment == Augment()
    assert config.model.dropout is None


# --- real steps -------------------------------------------------------------------------------------------


def small(index: Path, runs: Path) -> list[str]:
    """Leaves the recipe as it stands, but for the pictures' place and number, the machine and the reports."""
    batch = 8
    pictures = [
        f"data.index={index}",
        f"runs={runs}",
        f"train.batch={batch}",
        f"train.epochs={2 * batch / 250}",
    ]
    return [
        *pictures,
        "data.loading.threads=1",
        "train.device=cpu",
        "monitor.wandb=false",
        "monitor.log_every=1",
    ]


def check_two_steps(name: str, runs: Path) -> None:
    folder = runs / recipe(name).name
    trained = [row for row in read_rows(folder / "metrics.jsonl") if row["split"] == "train"]
    assert [row["step"] for row in trained] == [1, 2]
    assert all(math.isfinite(row["loss"]) for row in trained)
    assert list((folder / "checkpoints").glob("step_*2.pt"))


QUICK = ("cifar10/resnet20_fast", "cifar10/plain20")
SLOW = ("plain34", "resnet50_fast", "resnet50_strong", "resnet50_lars", "resnet152_zero", "vgg16_bn")
"""What the loop does for all others, it does for one of these."""


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(f"imagenet/{name}", marks=pytest.mark.slow) for name in SLOW)]
)
def test_two_steps(name, small_index, tmp_path):
    file = f"configs/{name}.yaml"
    words = small(small_index, tmp_path)
    if file not in CIFAR:
        words += [f"data.pictures.{key}=64" for key in ("size", "eval_size", "eval_resize")]
    if recipe(name).data.pictures.progressive is not None:
        words.append("data.pictures.progressive.start=32")
    if recipe(name).engine == "deepspeed":  # which leaves its marks on a process: by its own door
        got = command("launch.train", file, *words, cwd=ROOT)
        assert got.returncode == 0, got.stderr
    else:
        with join("cpu") as ranks:
            run(recipe(name, *words), ranks)
    check_two_steps(name, tmp_path)
