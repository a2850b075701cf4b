"""DeepSpeed against DDP: the same steps, the same checkpoints, and what becomes of bad gradients."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT, quick_config, torchrun
from engine_rounds import ENGINES, MUCH, RATES, SAME
from hypothesis import given
from hypothesis import strategies as st
from jobs import finish, write_config
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.models import build
from pipeline.monitor.metrics import read_rows
from pipeline.train import checkpoint, run
from pipeline.train.engine import build_engine
from pipeline.train.engine.precision import LossScale
from pipeline.train.ranks import join
from pipeline.transfer.backbone import Backbone

ZERO = ENGINES[1:]
LOSS = 1e-6
"""Of losses, relative: 8 roundings of float32. Engines add gradients up in different orders; seen 2e-7."""
TENSOR = 1e-5
"""Of a tensor's difference in norm, relative. Batch norm's biases are near zero after so few steps, sums of
terms that cancel, and show roundings tenfold; seen 2e-6."""


def play(folder: Path, index: Path, ranks: int, *rounds: str) -> Path:
    """Has rounds done on ranks; a folder with what was seen."""
    config = write_config(folder, index)
    words = (str(ROOT / "tests" / "engine_rounds.py"), ",".join(rounds), config, str(folder))
    process = torchrun(ranks, *words)
    told, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert not told, "DeepSpeed is quiet"
    return folder


def seen(folder: Path, name: str) -> dict:
    return torch.load(folder / f"{name}.pt", weights_only=True)


def near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(
        torch.linalg.norm(found[name].double() - each.double()) <= TENSOR * torch.linalg.norm(each.double())
        for name, each in expected.items()
    )


def bits(tree: dict) -> dict:
    """Everything in it, to the bit: -0.0 is not 0.0."""
    return {
        key: bits(value)
        if isinstance(value, dict)
        else (tuple(value.shape), value.contiguous().numpy().tobytes())
        if isinstance(value, Tensor)
        else value
        for key, value in tree.items()
    }


@pytest.fixture(scope="session")
def played(small_index, tmp_path_factory) -> Path:
    """Two ranks begin, and two new processes go on."""
    folder = tmp_path_factory.mktemp("played")
    play(folder, small_index, 2, "same", "poison", "begin")
    return play(folder, small_index, 2, "go_on", "carry")


# --- the same steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SAME)
def test_all_engines_take_the_same_steps(setting, played):
    check_same(played, setting)


def check_same(folder: Path, setting: str) -> None:
    ddp = seen(folder, f"{setting} ddp")
    norm = torch.stack([each.norm() for each in ddp["gradients"][0].values()]).norm()
    assert norm > MUCH["optim__clip"], "clipping has something to do"
    for engine in ZERO:
        found = seen(folder, f"{setting} {engine}")
        assert found["losses"] == pytest.approx(ddp["losses"], rel=LOSS)
        for ours, theirs in zip(found["gradients"], ddp["gradients"], strict=True):
            assert near(ours, theirs)
        assert near(found["state"]["model"], ddp["state"]["model"])
        assert near_named(found["state"], ddp["state"])
        for ema in [False] + [True] * ("ema" in ddp["state"]):
            assert found[f"val {ema}"] == pytest.approx(ddp[f"val {ema}"], rel=LOSS)
            if ema:
                assert near(found["state"]["ema"], ddp["state"]["ema"])
                assert found["val True"] != pytest.approx(found["val False"], rel=LOSS)


def near_named(found: dict, expected: dict) -> bool:
    """Of the optimizer's state, by parameter name."""
    found, expected = found["optimizer"]["named"], expected["optimizer"]["named"]
    assert found.keys() == expected.keys()
    return all(near(found[name], each) for name, each in expected.items())


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_the_mean_of_what_the_ranks_hooks_see(engine, played):
    found = seen(played, f"sgd alone {engine}")
    assert near(found["gradients"][-1], found["hooks"])


@pytest.mark.parametrize("engine", ENGINES)
def test_all_ranks_evaluate_the_same_network(engine, played):
    found = seen(played, f"adamw {engine}")
    assert len(set(found["statistics"])) == 2, "every rank has its own running statistics"
    assert len(set(found["networks False"])) == len(set(found["networks True"])) == 1
    assert found["networks False"] != found["networks True"]


# --- checkpoints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_continued_run_is_bit_identical(engine, played):
    assert bits(seen(played, f"continued {engine}")) == bits(seen(played, f"whole {engine}"))


@pytest.mark.parametrize("reader", ENGINES)
def test_every_engine_reads_every_checkpoint(reader, played):
    check_carried(played, reader)


def check_carried(folder: Path, reader: str, written_in: Path | None = None) -> None:
    for writer in ENGINES:
        written = seen(written_in or folder, f"half {writer}")
        assert written["optimizer"]["named"]["conv1.weight"].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert bits(seen(folder, f"{writer} by {reader}")) == bits(written)


@pytest.mark.slow
def test_one_rank_reads_what_two_wrote(played, small_index, tmp_path):
    halves(played, tmp_path)
    play(tmp_path, small_index, 1, "carry")
    for reader in ENGINES:
        check_carried(tmp_path, reader)


def halves(played: Path, folder: Path) -> None:
    """Two ranks' checkpoints, for others to read."""
    for engine in ENGINES:
        torch.save(seen(played, f"half {engine}"), folder / f"half {engine}.pt")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_ranks(played, small_index, tmp_path):
    """Parts that do not divide evenly: everything that two ranks do, and what two ranks wrote."""
    halves(played, tmp_path)
    play(tmp_path, small_index, 3, "carry", "same", "poison", "begin")
    for reader in ENGINES:
        check_carried(tmp_path, reader, played)
    play(tmp_path, small_index, 3, "go_on", "carry")
    for setting in SAME:
        check_same(tmp_path, setting)
    for engine in ENGINES:
        assert bits(seen(tmp_path, f"continued {engine}")) == bits(seen(tmp_path, f"whole {engine}"))
        check_carried(tmp_path, engine)
        check_poisoned(tmp_path, engine, 3)


@pytest.mark.slow
def test_all_settings(small_index, tmp_path):
    play(tmp_path, small_index, 2, "product")
    names = {path.stem.rsplit(" ", 1)[0] for path in tmp_path.glob("*.pt")}
    assert len(names) == len(RATES) * 2 * 2 * 2
    for name in names:
        ddp = seen(tmp_path, f"{name} ddp")
        for engine in ZERO:
            found = seen(tmp_path, f"{name} {engine}")
            assert found["losses"] == pytest.approx(ddp["losses"], rel=LOSS), (name, engine)
            assert near(found["model"], ddp["model"]), (name, engine)
            assert ddp["ema"] is None or near(found["ema"], ddp["ema"]), (name, engine)


# --- gradients that are not finite ------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bad_step_is_as_if_it_had_not_been(engine, played):
    check_poisoned(played, engine, 2)


def check_poisoned(folder: Path, engine: str, ranks: int) -> None:
    found, ddp = seen(folder, f"poison {engine}"), seen(folder, "poison ddp")
    assert found["applied"] == [[True, True, False, True]] * ranks
    for part in ("model", "optimizer"):
        assert bits(found["poisoned"][part]) == bits(found["spared"][part])
    # Its decay depends on the step's number, and so do those that went by.
    assert near(found["poisoned"]["ema"], ddp["poisoned"]["ema"])


@pytest.mark.slow
def test_narrow_types(small_index, tmp_path):
    """bf16, and fp16 from a loss scale that is too high at first, as DDP with torch's GradScaler."""
    play(tmp_path, small_index, 2, "narrow")
    for precision in ("bf16", "fp16"):
        ddp = seen(tmp_path, f"{precision} ddp")
        first = ddp["applied"].index(True)
        assert (first > 0) == (precision == "fp16")
        for engine in ZERO:
            found = seen(tmp_path, f"{precision} {engine}")
            assert (found["applied"], found["scales"]) == (ddp["applied"], ddp["scales"])
            assert found["state"]["optimizer"]["scaler"] == ddp["state"]["optimizer"]["scaler"]
            # Later, a last bit may put a weight on the other side of what the narrow type rounds.
            assert near(found["gradients"][first], ddp["gradients"][first])


@given(overflows=st.lists(st.booleans(), max_size=30))
def test_the_loss_scale_follows_torchs_rule(overflows):
    start = LossScale().state_dict() | {"growth_interval": 3}
    ours, theirs = LossScale(), torch.amp.GradScaler("cpu")
    ours.load_state_dict(start)
    theirs.load_state_dict(start)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight])
    for overflow in overflows:
        weight.grad = torch.tensor([torch.inf if overflow else 1.0])
        theirs.scale(torch.zeros(()))
        theirs.unscale_(optimizer)
        theirs.update()
        ours.update(overflow=overflow)
        assert ours.state_dict() == theirs.state_dict()
        assert ours.value == theirs.get_scale()


# --- whole jobs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_job_ends_well_and_another_engine_goes_on_with_it(stage, small_index, tmp_path):
    """Only our own lines on stderr; its last checkpoint lost, DDP takes the last steps again, alone."""
    changes = {"data__val": "val", "train__ema": 0.9}
    config = write_config(tmp_path, small_index, **changes)
    told = finish(2, config, "engine=deepspeed", f"deepspeed.stage={stage}")
    assert not [line for line in told.splitlines() if not line.startswith(("quick: ", "epoch ", "validate"))]
    folder = tmp_path / "runs" / "quick"
    for ema in (False, True):
        assert Backbone.read(str(folder), ema=ema).weights.keys() == build("resnet8", 5).state_dict().keys()
    first = read_rows(folder / "metrics.jsonl")
    before, last = checkpoint.numbered(folder / "checkpoints")
    last.unlink()
    (folder / "checkpoints" / "latest").write_text(f"{before.name}\n")
    with join("cpu") as ranks:
        run(quick_config(small_index, tmp_path / "runs", **changes), ranks)
    rows = read_rows(folder / "metrics.jsonl")
    assert [(row["step"], row["split"]) for row in rows] == [(row["step"], row["split"]) for row in first]
    kept = sum(row["step"] <= checkpoint.step_of(before) for row in first)
    assert rows[:kept] == first[:kept]
    assert rows[kept:] != first[kept:]


@pytest.mark.slow
def test_a_compiled_model_takes_the_same_steps(small_index, tmp_path):
    """torch.compile fuses, and rounds otherwise."""
    play(tmp_path, small_index, 2, "compiled")
    for engine in ENGINES[:-1]:
        plain, compiled = (seen(tmp_path, f"compiled {word} {engine}")["model"] for word in (False, True))
        assert near(compiled, plain)
        assert near(compiled, seen(tmp_path, "compiled False ddp")["model"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"train__compile": True, "engine": "deepspeed", "deepspeed__stage": 3},
            "train.compile: true does not",
        ),
        ({"train__sync_batchnorm": True}, "train.sync_batchnorm: true works on GPUs alone"),
        ({"train__sync_batchnorm": True, "engine": "deepspeed"}, "train.sync_batchnorm: true works on"),
    ],
)
def test_what_cannot_be_is_told(changes, told, small_index, tmp_path):
    config = quick_config(small_index, tmp_path, **changes)
    with join("cpu") as ranks, pytest.raises(UserError, match=told):
        build_engine(build("resnet8", 5), config, ranks)
