"""Exported networks answer as their checkpoints do, or no file appears."""

import functools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import safetensors
import torch
import torchvision
import yaml
from conftest import ROOT, config_tree, quick_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_models_torchvision import random_state
from torchvision.transforms.v2.functional import normalize

from launch.export import main
from pipeline.config import Model, TrainConfig, parse
from pipeline.data.index import open_index
from pipeline.export.compare import Comparison, Normalise
from pipeline.export.trained import Trained
from pipeline.export.weights import to_safetensors
from pipeline.models import build
from pipeline.train import Job, checkpoint, fit
from pipeline.train.ranks import join
from pipeline.train.weights import switches

CLASSES = ["cat", "dog", "Häschen"]


@pytest.fixture(scope="module")
def run(small_index, tmp_path_factory) -> Path:
    """A run's folder: a ResNet-8 that learned five classes of stripes, and its moving average."""
    runs = tmp_path_factory.mktemp("trained")
    with join("cpu") as ranks:
        config = quick_config(small_index, runs, train__epochs=2.0, train__ema=0.9)
        fit(Job(config, ranks, open_index(small_index).split("train")))
    return runs / "quick"


def made(folder: Path, name: str, size: int = 32, weights: dict | None = None, **changed) -> Path:
    """A checkpoint of a network at random weights, batch-norm statistics too."""
    changes = {f"model__{key}": value for key, value in changed.items()}
    config = config_tree(Path("index"), Path("runs"), model__name=name, **changes)
    config["data"]["pictures"]["size"] = size
    config = parse(TrainConfig, config, "made")
    if weights is None:
        weights = random_state(build(name, len(CLASSES), **switches(config.model)), seed=5)
    state = {"model": weights, "config": config.model_dump(), "classes": CLASSES}
    return checkpoint.save(folder / name / "checkpoints", 12, state, keep=1)


def logits(model: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(pictures)


def pictures(n: int, size: int) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n))


def rebuilt(facts: dict[str, str], weights: dict) -> torch.nn.Module:
    """The network, from nothing but an exported file."""
    model = Model(**yaml.safe_load(facts["config"])["model"])
    network = build(facts["model"], len(json.loads(facts["classes"])), **switches(model))
    network.load_state_dict(weights, strict=True)
    return network


def refused(capsys, *words) -> str:
    """The one line of a mistake."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    told = capsys.readouterr()
    assert end.value.code == 2
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# --- weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["model", "ema"])
def test_safetensors_hold_the_checkpoints_bits_and_all_that_is_needed(run, key, tmp_path, capsys):
    out = tmp_path / "deep" / "net.safetensors"
    main([str(run), "--to", "safetensors", "--out", str(out), *(["--ema"] if key == "ema" else [])])
    assert capsys.readouterr().out.startswith(f"{out}: 0.3 MB; ")
    state, weights = checkpoint.read(run), load_file(out)
    assert weights.keys() == state[key].keys()
    for name, value in state[key].items():
        assert weights[name].dtype == value.dtype
        assert weights[name].numpy().tobytes() == value.contiguous().numpy().tobytes(), name
    assert not torch.equal(state["model"]["fc.weight"], state["ema"]["fc.weight"])

    with safetensors.safe_open(out, "pt") as file:
        facts = file.metadata()
    assert facts["weights"] == {"model": "raw", "ema": "ema"}[key]
    assert json.loads(facts["classes"]) == list("abcde")
    assert int(facts["step"]) == state["step"]
    assert json.loads(facts["pictures"]) == {
        "resize": None,
        "size": 32,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert str(run.parent).encode() not in out.read_bytes(), "paths are nobody's business"
    expected = build("resnet8", 5)
    expected.load_state_dict(state[key])
    shown = pictures(4, 32)
    assert torch.equal(logits(rebuilt(facts, weights), shown), logits(expected, shown))


@settings(max_examples=15)
@given(
    name=st.sampled_from(["resnet8", "resnet14", "plain8", "resnet18", "plain18", "vgg11", "vgg13_bn"]),
    width=st.sampled_from([0.05, 0.1]),
    norm=st.sampled_from([None, True, False]),
    shortcut=st.sampled_from([None, "projection", "pad"]),
    classes=st.lists(st.text(), min_size=1, max_size=5, unique=True),
    seed=st.integers(0, 99),
)
def test_any_network_is_rebuilt_from_its_file(name, width, norm, shortcut, classes, seed, tmp_path_factory):
    about = {"name": name, "width": width, "norm": norm}
    about |= {"shortcut": shortcut} if name.startswith("resnet") else {}
    tree = config_tree(Path("index"), Path("runs"), model=about)
    config = parse(TrainConfig, tree, "drawn")
    model = build(name, len(classes), **switches(config.model))
    model.load_state_dict(random_state(model, seed))
    content, _ = to_safetensors(Trained(Path("drawn"), config, classes, seed, False, model.eval()))
    file = tmp_path_factory.mktemp("drawn") / "net.safetensors"
    file.write_bytes(content)
    with safetensors.safe_open(file, "pt") as opened:
        facts = opened.metadata()
    assert json.loads(facts["classes"]) == classes
    assert torch.equal(
        logits(rebuilt(facts, load_file(file)), pictures(2, 32)), logits(model, pictures(2, 32))
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        pytest.param("resnet50", 32, marks=pytest.mark.slow),
        pytest.param("vgg11_bn", 32, marks=pytest.mark.slow),
    ],
)
def test_torchvision_loads_its_state_dict(name, size, tmp_path, capsys):
    path = made(tmp_path, name, size)
    main([str(path.parent.parent), "--to", "torchvision"])
    out = tmp_path / name / f"{name}_step_00000012.pth"
    told = capsys.readouterr().out
    assert told.startswith(f"{out}: ")
    assert f"torchvision's {name} loads it; logits differ by " in told
    theirs = torchvision.models.get_model(name, num_classes=3)
    theirs.load_state_dict(torch.load(out, weights_only=True), strict=True)
    ours = build(name, 3)
    ours.load_state_dict(checkpoint.read(path)["model"])
    expected = logits(ours, pictures(3, size))
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits(theirs, pictures(3, size)), expected, rtol=1e-5, atol=1e-5)
    path.unlink()  # a VGG has half a GB
    out.unlink()


def test_torchvision_takes_no_other_network(run, tmp_path, capsys):
    out = tmp_path / "net.pth"
    told = refused(capsys, run, "--to", "torchvision", "--out", out)
    assert told == "--to torchvision: it has no resnet8; --to safetensors and --to onnx will do"
    narrow = made(tmp_path, "resnet18", width=0.1)
    told = refused(capsys, narrow, "--to", "torchvision", "--out", out)
    assert "its resnet18 is another network than this one of model.width=0.1 (" in told
    pad = made(tmp_path, "resnet34", width=1.0, shortcut="pad", norm=False)
    told = refused(capsys, pad, "--to", "torchvision", "--out", out)
    assert "of model.shortcut=pad, model.norm=False (bn1.bias)" in told
    assert not out.exists()


# --- ONNX -------------------------------------------------------------------------------------------------


def opened(file: Path, side: int, kind: str = "float") -> onnxruntime.InferenceSession:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", f"tensor({kind})", ["batch", 3, side, side])
    assert (taken.name, taken.type) == ("logits", "tensor(float)")
    return session


def asked(session: onnxruntime.InferenceSession, images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize(
    ("name", "size", "switched"),
    [
        ("resnet18", 64, {}),
        ("vgg11_bn", 48, {"width": 0.1}),
        pytest.param(
            "resnet18", 33, {"width": 0.25, "shortcut": "pad", "dropout": 0.5}, marks=pytest.mark.slow
        ),
        pytest.param("resnet50", 64, {}, marks=pytest.mark.slow),
        pytest.param("vgg11", 32, {"width": 0.25}, marks=pytest.mark.slow),
    ],
)
def test_an_onnx_graph_answers_as_the_checkpoint(name, size, switched, tmp_path, capsys):
    path, out = made(tmp_path, name, size, **switched), tmp_path / "net.onnx"
    main([str(path), "--to", "onnx", "--out", str(out)])
    assert f"images (N, 3, {size}, {size}) float32, normalised; logits differ by " in capsys.readouterr().out
    ours = build(name, 3, **switched)
    ours.load_state_dict(checkpoint.read(path)["model"])
    session = opened(out, size)
    for n in (1, 2, 7, 16):
        expected = logits(ours, pictures(n, size))
        scale = expected.abs().max().item()
        torch.testing.assert_close(asked(session, pictures(n, size)), expected, rtol=0, atol=1e-5 * scale)
    assert (expected.std(dim=0) > 1e-3 * scale).all(), "the comparison must be of a living signal"


def test_an_onnx_graph_of_pixels(run, tmp_path):
    """Of a trained moving average, at another size; else the same metadata as in safetensors; no paths."""
    out, weights = tmp_path / "net.onnx", tmp_path / "net.safetensors"
    main([str(run), "--to", "onnx", "--out", str(out), "--ema", "--pixels", "--size", "48"])
    main([str(run), "--to", "safetensors", "--out", str(weights), "--ema"])
    session, state = opened(out, 48, "uint8"), checkpoint.read(run)
    facts = session.get_modelmeta().custom_metadata_map
    with safetensors.safe_open(weights, "pt") as file:
        trained = file.metadata()
    own = json.loads(trained["pictures"])
    assert json.loads(facts["pictures"]) == own | {"size": 48, "resize": None}
    assert trained == {"format": "pt"} | facts | {"pictures": trained["pictures"]}
    onnx.checker.check_model(str(out), full_check=True)
    for path in (ROOT, run.parent, Path(torch.__file__).parent):
        assert str(path).encode() not in out.read_bytes()

    pixels = torch.randint(
        0, 256, (7, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    shown = json.loads(facts["pictures"])
    normal = normalize(pixels / 255, shown["mean"], shown["std"])
    torch.testing.assert_close(
        Normalise(parse(TrainConfig, state["config"], "").data.pictures)(pixels), normal
    )
    expected = logits(rebuilt(facts, state["ema"]), normal)
    torch.testing.assert_close(asked(session, pixels), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, logits(rebuilt(facts, state["model"]), normal), atol=1e-2)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say that there is none
    told = refused(capsys, run, "--to", "onnx")
    assert told == f"--to onnx: needs {package}; uv sync --group export installs it"


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["epsilon", "padding", "order"])
def test_another_networks_answers_are_noticed(run, change):
    """An export that subtly differs is a fault of ours: no file, a traceback."""
    trained = Trained.read(run, ema=False)
    comparison = Comparison(trained, 32)
    assert "logits differ by 0.0e+00 at most" in comparison.to(functools.partial(logits, trained.model))
    other = Trained.read(run, ema=False).model
    if change == "epsilon":
        other.bn1.eps = 1e-3
    elif change == "padding":
        other.conv1.padding_mode = "replicate"
        other.conv1._reversed_padding_repeated_twice = [1, 1, 1, 1]
    else:
        other.fc.weight.copy_(other.fc.weight[[1, 0, 2, 3, 4]])
    with pytest.raises(RuntimeError, match="not exported: logits differ by"):
        comparison.to(functools.partial(logits, other))


@pytest.mark.parametrize("to", ["torchvision", "onnx"])
def test_an_older_file_stays_when_nothing_can_be_compared(to, tmp_path, capsys):
    weights = random_state(build("resnet18", 3), seed=1)
    weights["layer3.0.conv1.weight"][4, 0, 1, 1] = torch.nan
    path, out = made(tmp_path, "resnet18", weights=weights), tmp_path / "net"
    out.write_bytes(b"older")
    assert refused(capsys, path, "--to", to, "--out", out) == (
        f"{path}: its logits are not finite: the run diverged; export an earlier one"
    )
    assert out.read_bytes() == b"older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net", "resnet18"]


def test_a_disk_that_takes_a_part_leaves_the_older_file(run, tmp_path):
    """The limit on file sizes ends the writing where a full disk would."""
    out = tmp_path / "net"
    out.write_bytes(b"older")
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    ended = subprocess.run(
        [sys.executable, "-B", "-m", "launch.export", run, "--to", "safetensors", "--out", out],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr == f"error: --out {out}: cannot be written: File too large\n"
    assert [file.name for file in tmp_path.iterdir()] == ["net"]
    assert out.read_bytes() == b"older"


def test_an_older_file_is_replaced(run, tmp_path):
    out, newest = tmp_path / "net.safetensors", checkpoint.latest(run)
    out.write_bytes(b"older")
    main([str(newest), "--to", "safetensors", "--out", str(out)])
    assert load_file(out).keys() == checkpoint.read(newest)["model"].keys()
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_files_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for out, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "net", "its folder is a file"),
        (tmp_path / "file" / "deep" / "net", "its folder is a file"),
        (tmp_path / ("n" * 250), "File name too long"),
        (Path("/proc/net.safetensors"), "No such file or directory"),
    ):
        told = refused(capsys, run, "--to", "safetensors", "--out", out)
        assert told == f"--out {out}: cannot be written: {reason}"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_checkpoints_that_cannot_be_read(run, tmp_path, capsys):
    content = checkpoint.latest(run).read_bytes()
    cut, flipped, state = (tmp_path / f"{name}.pt" for name in ("cut", "flipped", "state"))
    cut.write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    flipped.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    torch.save(checkpoint.read(run)["model"], state)
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (cut, "damaged or cut off"),
        (flipped, "does not match its checksum"),
        (state, "not a checkpoint of launch.train"),
        (tmp_path / "none.pt", "no such checkpoint"),
        (tmp_path / "empty", "no checkpoint in "),
    ):
        told = refused(capsys, path, "--to", "safetensors", "--out", tmp_path / "net")
        assert str(path) in told
        assert reason in told
    assert not (tmp_path / "net").exists()


def test_mistakes(run, tmp_path, capsys):
    vgg = made(tmp_path, "vgg11", width=0.1)
    out = tmp_path / "net"
    for words, told in (
        ((run, "--to", "pickle"), "--to pickle: no such format; there are safetensors, torchvision, onnx"),
        ((run, "--to", "safetensors", "--size", 32), "--size: weights take any pictures; only ONNX has this"),
        ((run, "--to", "torchvision", "--pixels"), "--pixels: weights take any pictures; only ONNX has this"),
        ((run, "--to", "onnx", "--size", 0), "--size 0: resnet8 needs pictures of 1 or more"),
        ((vgg, "--to", "onnx", "--size", 31), "--size 31: vgg11 needs pictures of 32 or more"),
        (
            (vgg, "--to", "onnx", "--ema"),
            f"{vgg}: holds no moving average; train with train.ema, or use the raw weights",
        ),
    ):
        assert refused(capsys, *words, "--out", out) == told
    assert not out.exists()


def test_weights_of_another_network_are_named(tmp_path, capsys):
    path = made(tmp_path, "resnet8", weights=build("resnet14", 3).state_dict())
    told = refused(capsys, path, "--to", "safetensors")
    assert told == f"model.checkpoint: {path} does not hold a resnet8: layer1.1.bn1.bias"
