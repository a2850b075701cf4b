"""launch.plan: counts beside what torch does, laws of the model, and the door."""

import itertools
import json
import math
import shutil

import pytest
import torch
from conftest import ROOT, torchrun
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from launch.plan import main
from pipeline.config import TrainConfig, UserError, dump, load
from pipeline.models import build
from pipeline.models.cost import Layer, Saved, layers, saved
from pipeline.plan import brief
from pipeline.plan.hardware import GPUS, RESNET50_MACS, Cluster, Rate
from pipeline.plan.memory import ENGINES, state
from pipeline.plan.network import Network, network_of
from pipeline.plan.pictures import IMAGENET
from pipeline.plan.published import compare
from pipeline.plan.scaling import COUNTS, Setting, left_over, row, shrunk
from pipeline.plan.wire import exchanges
from pipeline.plan.words import amount
from pipeline.train.plan import Plan

RESNET50 = "configs/imagenet/resnet50.yaml"


def config(*words: str) -> TrainConfig:
    return load(TrainConfig, RESNET50, ["data.index=nowhere", *words])


def network(*parameters: int) -> Network:
    """Of layers with so many parameters and as many multiply-adds."""
    own = tuple(Layer(count, count) for count in parameters)
    return Network("net", 224, "bf16", own, Saved(1000, 10), (8, 8), 2 * 8 * 8 + 16)


def setting(*words: str, net: Network | None = None, cluster: Cluster | None = None, **more) -> Setting:
    about = {"memory": None, "per_gpu": None, "decoding": 700.0, "cores": None} | more
    net = net or network(10**6, 10**7)
    rate = Rate(1000.0, 256, net.macs, "test")
    return Setting(config(*words), IMAGENET, net, rate, cluster or GPUS["a100"].cluster, **about)


# --- counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["resnet8", "vgg11_bn"])
def test_saved_bytes_are_those_of_a_real_pass(name, dtype):
    net = build(name, 10, width=0.125, dropout=0.0)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = net(torch.randn(3, 3, 32, 32, dtype=dtype))
        nn.functional.cross_entropy(logits.float(), torch.zeros(3, dtype=torch.long))
    own = {tensor.untyped_storage()._cdata for tensor in [*net.parameters(), *net.buffers()]}
    measured = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    assert saved(net, 32, dtype).of(3) == measured


def test_saved_bytes_by_hand():
    """Convolution and batch norm save their inputs, a ReLU its output, cross-entropy log-probabilities."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    picture, grid, label = 3 * 10 * 10, 8 * 8 * 8, 8
    found = saved(net, 10, torch.float32)
    assert found.picture == 4 * (picture + 3 * grid) + label
    assert found.batch >= 4 * 2 * 8  # mean and deviation of each channel


def test_layers_hold_all_parameters():
    net = build("resnet20", 10)
    found = layers(net, 32)
    assert sum(layer.parameters for layer in found) == sum(each.numel() for each in net.parameters())
    assert found[0].macs == 32 * 32 * 9 * 3 * 16
    assert found[1].macs == 0
    assert found[-1].macs == 64 * 10


def test_progressive_pictures_cost_their_area():
    words = ("data.pictures.progressive.start=112", "data.pictures.progressive.epochs=[45,45]")
    plan = Plan.of(config(*words), IMAGENET.count, 1)
    assert shrunk(plan) == pytest.approx((0.25 + 1) / 2, rel=0.01)
    assert shrunk(Plan.of(config(), IMAGENET.count, 1)) == 1


def test_amounts():
    told = {0: "0 B", 999: "999 B", 999.9: "1.00 kB", 25_557_032: "25.6 MB", 1.2345e12: "1.23 TB"}
    assert {number: amount(number, "B") for number in told} == told


# --- memory and wire --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**8), min_size=1), st.sampled_from(["sgd", "lars", "adamw"]), st.booleans())
@settings(max_examples=50, deadline=None)
def test_more_ranks_and_dividing_more_take_no_more_memory(parameters, optimizer, ema):
    net = network(*parameters)
    words = [f"optim.name={optimizer}", *["train.ema=0.9"] * ema]
    about = config(*words)
    for engine in ENGINES:
        totals = [state(net, about, ranks, engine).total for ranks in COUNTS]
        assert totals == sorted(totals, reverse=True)
    for ranks in COUNTS:
        held = [state(net, about, ranks, stage) for stage in (0, 1, 2, 3)]
        optimizers, gradients = [each.optimizer for each in held], [each.gradients for each in held[1:]]
        assert optimizers == sorted(optimizers, reverse=True)
        assert gradients == sorted(gradients, reverse=True)


def test_state_of_ddp_is_four_bytes_of_each():
    net = network(10**6)
    held = state(net, config(), 8, "ddp")
    assert (held.weights, held.gradients, held.optimizer, held.average) == (4e6, 4e6, 4e6, 0)
    assert state(net, config("optim.momentum=0.0"), 8, "ddp").optimizer == 0
    assert state(net, config("optim.name=adamw"), 8, "ddp").optimizer == 8e6
    assert state(net, config("optim.name=adamw"), 8, 1).optimizer == 1e6


@given(st.integers(2, 1024), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_what_is_sent_is_what_rings_need(ranks, accumulate):
    """Stage 3 with one micro-batch sends no more than DDP; stages 2 and 3 send in every micro-batch."""
    net, about = network(10**6, 10**6), config(f"train.accumulate={accumulate}")
    sent = {e: sum(each.sent for each in exchanges(net, about, ranks, e)) for e in ENGINES}
    half = (ranks - 1) / ranks * net.bytes
    assert sent["ddp"] == pytest.approx(2 * half)
    assert sent[0] == pytest.approx(2 * half)
    assert sent[1] == pytest.approx(3 * half)
    assert sent[2] == pytest.approx((2 * accumulate + 1) * half)
    assert sent[3] == pytest.approx(2 * accumulate * half)
    assert exchanges(net, about, 1) == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", 1, 3])
def test_state_and_wire_are_those_of_the_engine(engine, tmp_path):
    """Two ranks on the CPU; what is whole only within a step (see ``State``) has gone when it is measured."""
    width = ["model.name=resnet20", "model.width=4.0", "train.batch=8", "train.precision=fp32"]
    about = config(*width, "deepspeed.bucket=1000000", "train.channels_last=false", "train.ema=0.9")
    (tmp_path / "config.yaml").write_text(dump(about))
    file = tmp_path / "seen.json"
    script = str(ROOT / "tests" / "plan_ranks.py")
    process = torchrun(2, script, str(tmp_path / "config.yaml"), str(engine), str(file))
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    seen = json.loads(file.read_text())

    net = network_of(about, 10)
    held = state(net, about, 2, engine)
    # DDP's copy is made when the average is first evaluated; stage 3 has let go of what it gathered.
    gone = {"ddp": held.copy, 1: held.gradients + held.buckets, 3: net.bytes}[engine]
    assert seen["living"] == pytest.approx(held.total - gone, rel=0.03)
    if engine != "ddp":  # which sends from C++
        ring = {"all_reduce": 1.0, "all_gather_into_tensor": 0.5, "reduce_scatter_tensor": 0.5}
        sent = sum(ring[name] * count for name, count in seen["sent"].items())
        assert sent == pytest.approx(sum(each.sent for each in exchanges(net, about, 2, engine)), rel=0.001)


# --- time -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 10**8), min_size=1, max_size=20),
    st.sampled_from(["engine=ddp", *(f"deepspeed.stage={stage}" for stage in range(4))]),
    st.booleans(),
    st.floats(1e9, 1e12),
    st.floats(0, 1e-3),
)
@settings(max_examples=50, deadline=None)
def test_more_gpus_are_never_more_efficient(parameters, engine, overlap, bandwidth, latency):
    words = [engine, "train.batch=4096", f"deepspeed.overlap={str(overlap).lower()}"]
    words += ["engine=deepspeed"] * (engine != "engine=ddp")
    cluster = Cluster(8, 4 * bandwidth, bandwidth, latency)
    about = setting(*words, net=network(*parameters), cluster=cluster)
    rows = [row(about, gpus) for gpus in COUNTS]
    assert not any(each.problem for each in rows)
    assert rows[0].efficiency == pytest.approx(1)
    for fewer, more in itertools.pairwise(rows):
        assert more.efficiency <= fewer.efficiency + 1e-9
        assert more.gpu_hours >= fewer.gpu_hours * (1 - 1e-9)
        assert more.waiting > 0
        assert more.memory <= fewer.memory


def test_one_gpu_has_the_rate_that_was_given():
    found = row(setting(), 1)
    assert found.pictures_per_s == pytest.approx(1000)
    assert found.hours == pytest.approx(math.ceil(90 * IMAGENET.count / 256) * 256 / 1000 / 3600)


def test_another_network_is_as_much_slower_as_it_computes_more():
    rate = Rate(1000.0, 250, RESNET50_MACS, "test")
    assert rate.seconds(2 * RESNET50_MACS, 0.0) == pytest.approx(2e-3)
    assert rate.seconds(RESNET50_MACS, 0.05) == pytest.approx((0.25 - 0.05) / 250)


def test_the_same_pictures_on_each_gpu():
    rows = [row(setting("train.accumulate=2", per_gpu=32), gpus) for gpus in (1, 8)]
    assert [(each.batch, each.pictures) for each in rows] == [(64, 32), (512, 32)]
    assert rows[0].steps == pytest.approx(8 * rows[1].steps, rel=1e-3)


def test_cores_that_decode_too_slowly_are_waited_for():
    assert row(setting(cores=1), 1).pictures_per_s == pytest.approx(700)
    assert row(setting(cores=2), 1).pictures_per_s == pytest.approx(1000)


def test_a_batch_that_cannot_be_split_is_told_not_planned():
    found = row(setting(), 512)
    assert "cannot be split over 512 ranks" in found.problem


def test_only_the_last_bucket_cannot_hide():
    """By hand: three equal layers, backward of 3 s, buckets of a layer each, then of two."""
    net = network(10, 10, 10)
    assert left_over(net, 3.0, (40, 40), lambda size: size / 80) == pytest.approx(0.5)
    assert left_over(net, 3.0, (40, 40), lambda size: size / 20) == pytest.approx(1 + 3 * 2 - 3)
    assert left_over(net, 3.0, (80, 80), lambda size: size / 80) == pytest.approx(0.5)
    assert left_over(net, 3.0, (1000, 40), lambda size: size / 80) == pytest.approx(1.5)


def test_the_model_beside_published_figures():
    """What docs/plan.md says of it; a change of the model must change that text too."""
    found = compare()
    assert all(one.model <= 1 for one in found)
    assert min(one.off for one in found) == pytest.approx(-0.106, abs=0.002)
    assert max(one.off for one in found) == pytest.approx(0.187, abs=0.002)
    fitted = [one.off for one in found if one.figure.fitted]
    assert fitted == [pytest.approx(0, abs=0.002)]
    # The same without the fitted constant: only rows whose pictures a GPU change move.
    for one, bare in zip(found, compare(0.0), strict=True):
        same = one.figure.pictures[0] == one.figure.pictures[1]
        assert (abs(one.model - bare.model) < 1e-3) == same


# --- for launch.submit, and the door ----------------------------------------------------------------------


def test_brief():
    text = "\n".join(brief(config("train.batch=1024"), 32))
    assert "25.6 M parameters" in text
    assert "112,603 of 1,024 pictures, 32 on each of 32 ranks" in text
    assert "198 MB from every rank" in text  # 2 x 31/32 x 4 x 25,557,032 bytes


def test_brief_tells_a_batch_that_cannot_be_split():
    with pytest.raises(UserError, match=r"train.batch: 256 pictures cannot be split over 7 ranks"):
        brief(config(), 7)


def test_the_door_writes_a_plan(tmp_path, capsys):
    main([RESNET50, "model.name=resnet18", "data.index=nowhere", "--gpu", "h200", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert (tmp_path / "plan.md").read_text() == told.rstrip() + "\n"
    assert "11.7 M" in told
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["network"]["parameters"] == 11_689_512
    assert [one["gpus"] for one in plan["rows"]] == list(COUNTS)
    with Image.open(tmp_path / "plan.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 800


def test_a_measured_rate_is_that_of_the_run(tmp_path, capsys):
    shutil.copy(RESNET50, tmp_path / "config.yaml")
    rows = [{"split": "train", "epoch": 1, "images_per_s": rate} for rate in (100, 120, 500)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    main([RESNET50, "--measured", str(tmp_path)])
    told = " ".join(capsys.readouterr().out.split())
    assert f"One GPU: 120 pictures/s at 256 a step (the median of {tmp_path}, taken for one GPU)." in told


def test_a_measured_rate_of_growing_pictures_is_that_of_the_largest(tmp_path, capsys):
    """Two thirds of a run on 128 pixels at 225/s, the rest on 192 at 100/s: by area the same rate."""
    words = [RESNET50, "data.pictures.size=192", "data.pictures.progressive.start=128"]
    words += ["data.pictures.progressive.epochs=[60,60]", "data.pictures.eval_size=224"]
    (tmp_path / "config.yaml").write_text(dump(load(TrainConfig, words[0], words[1:])))
    rates = [(epoch, 225 if epoch < 60 else 100) for epoch in range(90)]
    rows = [{"split": "train", "epoch": epoch, "images_per_s": rate} for epoch, rate in rates]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    main([*words, "--measured", str(tmp_path)])
    assert "One GPU: 100 pictures/s at 256 a step" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "a config is missing"),
        (["--check", "--out", "x"], "a config is missing"),
        ([RESNET50, "--gpu", "b200"], "--gpu b200: known are v100, a100, h100, h200"),
        ([RESNET50, "--rate", "0"], "--rate 0: must be greater than 0"),
        ([RESNET50, "--latency", "-1"], "--latency -1: must be 0 or more"),
        (
            [RESNET50, "--per-gpu-batch", "3", "data.pictures.augment.mixup=0.2"],
            "train.batch: 3 gives each of 1 ranks micro-batches of 3",
        ),
        ([RESNET50, "--rate", "9", "--measured", "runs/x"], "--rate and --measured"),
        ([RESNET50, "--rate", "99999", "--rate-batch", "8"], "--overhead 4.75: a step of 8 pictures"),
        ([RESNET50, "--rate-batch", "8"], "--rate-batch: belongs to --rate"),
        ([RESNET50, "train.bach=1"], "train.bach: no such key; did you mean train.batch?"),
        ([RESNET50, "model.name=resnet51"], "model.name: unknown name 'resnet51'"),
        ([RESNET50, "--measured", "nowhere"], "nowhere: no such run folder"),
    ],
)
def test_mistakes_are_told_in_a_line(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
    assert said.count("\n") == 1
