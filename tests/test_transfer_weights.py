"""Weights from anybody's file: recognised by their tensors, loaded whole, or refused in a line."""

import argparse
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import quick_config
from torch import nn
from torchvision import models

from pipeline.config import Model, Pictures, UserError
from pipeline.data.index import open_index
from pipeline.export import export
from pipeline.models import build
from pipeline.models.recognise import described, recognise
from pipeline.train import Job, checkpoint, fit
from pipeline.train.ranks import join
from pipeline.train.start import build_model
from pipeline.train.weights import Weights
from pipeline.transfer.backbone import LAST, Backbone

CPU = torch.device("cpu")
OURS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg11", "vgg13", "vgg16", "vgg19"]
OURS += ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
OTHERS = {
    "resnext50_32x4d": r"like resnet50, but layer1\.0\.conv1\.weight is 128x64x1x1, not 64x64x1x1",
    "wide_resnet50_2": r"like resnet50, but layer1\.0\.conv1\.weight is 128x64x1x1, not 64x64x1x1",
    "mobilenet_v2": "neither a ResNet, nor a plain net, nor a VGG",
    "vit_b_16": r"152 tensors, class_token 1x1x768, conv_proj\.weight 768x3x16x16, \.\.\.: neither",
}


def shapes_of(state: dict) -> dict:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.fixture(scope="module")
def theirs():
    """torchvision's ResNet-18 of 7 classes with batch norms as training leaves them."""
    torch.manual_seed(3)
    model = models.resnet18(num_classes=7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def trained(small_index, tmp_path_factory):
    """A run's folder of ours; its pixels are normalised in a way of their own."""
    runs = tmp_path_factory.mktemp("trained")
    pictures = {
        "size": 32,
        "crop": "pad",
        "eval_resize": None,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
    }
    with join("cpu") as ranks:
        changes = {"train__epochs": 0.3, "train__ema": 0.9, "data__pictures": pictures, "model__width": 0.5}
        fit(Job(quick_config(small_index, runs, **changes), ranks, open_index(small_index).split("train")))
    return runs / "quick"


@pytest.mark.parametrize("name", OURS)
def test_torchvisions_networks_are_recognised(name):
    with torch.device("meta"):
        state = models.get_model(name, weights=None, num_classes=5).state_dict()
    assert recognise(shapes_of(state)) == [name]


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet110", "resnet62"])
def test_nets_for_small_pictures_are_told_but_for_their_shortcuts(name):
    found = recognise(shapes_of(build(name, 10).state_dict()))
    assert found == [name, name.replace("resnet", "plain")]
    assert recognise(shapes_of(build("plain18", 10).state_dict())) == ["plain18"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_described(name):
    with torch.device("meta"):
        state = models.get_model(name, weights=None).state_dict()
    assert recognise(shapes_of(state)) == []
    with pytest.raises(AssertionError, match=OTHERS[name]):
        raise AssertionError(described(shapes_of(state)))


def test_timms_networks(tmp_path):
    timm = pytest.importorskip("timm")
    for name, plain in {"resnet18": True, "resnet50": True, "resnet18d": False, "seresnet50": False}.items():
        with torch.device("meta"):
            state = timm.create_model(name, pretrained=False).state_dict()
        assert recognise(shapes_of(state)) == ([name] if plain else []), name
        if not plain:
            first = {"resnet18d": "conv1.weight is missing", "seresnet50": "there is layer1.0.se"}[name]
            assert re.search(rf"like resnet\d+, but {first}", described(shapes_of(state)))


@pytest.mark.slow
def test_timms_vgg(tmp_path):
    """It keeps the hidden layers as convolutions."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("vgg11", pretrained=False, num_classes=7).eval()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "vgg11.safetensors")
    del theirs.head.fc
    backbone = Backbone.read(str(tmp_path / "vgg11.safetensors"))
    assert backbone.about.name == "vgg11"
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = theirs.pre_logits(theirs.features(images)).flatten(1)
        (found,) = backbone.frozen(CPU).at(images, [LAST])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (tmp_path / "vgg11.safetensors").unlink()


def test_hidden_layers_kept_as_convolutions_are_ours(tmp_path):
    """As timm keeps a VGG's, here of few channels."""
    own = build("vgg11", 3, width=0.05).state_dict()
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    theirs = dict(own)
    for ours, name in names.items():
        weight, bias = theirs.pop(f"{ours}.weight"), theirs.pop(f"{ours}.bias")
        side = {"classifier.0": 7, "classifier.3": 1}.get(ours)
        shape = (len(weight), -1, side, side) if side else weight.shape
        theirs |= {f"{name}.weight": weight.reshape(shape), f"{name}.bias": bias}
    torch.save(theirs, tmp_path / "timm.pth")
    found = Weights.read(tmp_path / "timm.pth").tensors
    assert found.keys() == own.keys()
    assert all(torch.equal(found[key], own[key]) for key in own)


def _forms(state: dict) -> dict:
    """By file name, what a training script may have saved."""
    untracked = {key: value for key, value in state.items() if "num_batches" not in key}
    averaged = {f"module.{key}": value for key, value in state.items()} | {"n_averaged": torch.tensor(3)}
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    return {
        "plain.pth": state,
        "ddp.pth": {f"module.{key}": value for key, value in state.items()},
        "example.pth": {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
        "torchvision.pth": {"model": state, "optimizer": {"lr": 0.1}, "args": argparse.Namespace(lr=0.1)},
        "compiled.pth": {f"_orig_mod.module.{key}": value for key, value in state.items()},
        "oldest.pth": untracked,
        "ema_timm.pth": {"state_dict": other, "state_dict_ema": state},
        "ema_torchvision.pth": {"model": other, "model_ema": averaged},
    }


def test_every_form_gives_torchvisions_features(theirs, tmp_path):
    images = torch.randn(3, 3, 64, 64)
    body = nn.Sequential(*list(theirs.children())[:-1], nn.Flatten())
    with torch.inference_mode():
        expected = body(images)
    state = theirs.state_dict()
    for name, content in _forms(state).items():
        torch.save(content, tmp_path / name)
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "timm.safetensors")
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    safetensors.torch.save_file(headless, tmp_path / "headless.safetensors")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 11
    for file in files:
        backbone = Backbone.read(str(file), ema=file.name.startswith("ema"))
        assert backbone.about.name == "resnet18"
        assert backbone.classes == (0 if file.stem == "headless" else 7)
        with torch.inference_mode():
            assert torch.allclose(backbone.frozen(CPU)(images), expected, atol=1e-5), file.name
    assert Backbone.read(str(tmp_path / "plain.pth")).normalised(Pictures()) == Pictures(), "ImageNet's"


def test_finetuning_starts_from_a_foreign_file(theirs, small_index, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    about = {"name": "resnet18", "checkpoint": str(tmp_path / "theirs.pth")}
    with join("cpu") as ranks:
        ours = build_model(
            quick_config(small_index, tmp_path, model=about), list("abcdefg"), ranks
        ).state_dict()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours[key], value) != key.startswith("fc."), key  # its classes have no names


def test_a_head_that_would_fit_is_not_dropped_in_silence(theirs, trained, small_index, tmp_path, capsys):
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")

    def told(name: str, file: Path, classes: str, **switches) -> str:
        about = {"name": name, "checkpoint": str(file)} | switches
        with join("cpu") as ranks:
            build_model(quick_config(small_index, tmp_path, model=about), list(classes), ranks)
        return capsys.readouterr().err

    line = told("resnet18", tmp_path / "theirs.pth", "abcdefg")
    assert line.count("\n") == 1
    assert "theirs.pth does not name its classes; its head would fit, and is drawn anew" in line
    assert "names other classes; its head would fit" in told("resnet8", trained, "abcdx", width=0.5)
    assert told("resnet8", trained, "abcde", width=0.5) == "", "it is kept"
    assert told("resnet8", trained, "abc", width=0.5) == "", "everybody knows that it does not fit"


def test_export_tells_net_classes_and_pixels(trained, tmp_path):
    export(trained, "safetensors", tmp_path / "ours.safetensors")
    export(trained, "safetensors", tmp_path / "average.safetensors", ema=True)
    for name, ema in {"ours": False, "average": True}.items():
        origin = Backbone.read(str(trained), ema=ema)
        backbone = Backbone.read(str(tmp_path / f"{name}.safetensors"), ema=ema)
        assert backbone.about == origin.about.model_copy(update={"checkpoint": None})
        assert backbone.about.width == 0.5
        assert backbone.pictures == origin.pictures
        assert all(torch.equal(backbone.weights[key], value) for key, value in origin.weights.items())
    with pytest.raises(UserError, match=r"its weights are no moving average; export with --ema"):
        Backbone.read(str(tmp_path / "ours.safetensors"), ema=True)


def test_pixels_are_normalised_as_in_training_unless_the_config_says_otherwise(trained, capsys):
    backbone = Backbone.read(str(trained))
    assert backbone.normalised(Pictures(eval_resize=256), tell=True).mean == [0.4, 0.5, 0.6]
    assert backbone.normalised(Pictures(std=[0.2, 0.3, 0.4]), tell=True).mean == [0.4, 0.5, 0.6]
    assert capsys.readouterr().err == ""
    asked = backbone.normalised(Pictures(mean=[0.1, 0.1, 0.1]), tell=True)
    assert (asked.mean, asked.std) == ([0.1, 0.1, 0.1], [0.2, 0.3, 0.4])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pictures.mean: [0.1, 0.1, 0.1]" in told
    assert "trained with [0.4, 0.5, 0.6]" in told


class Trap:
    """What ``torch.load`` must never run."""

    def __reduce__(self):
        return pytest.fail, ("code of a checkpoint was run",)


def test_mistakes_cost_a_line_each(theirs, trained, tmp_path):
    state = theirs.state_dict()
    small = build("resnet20", 10).state_dict()
    made = {
        "small.pth": small,
        "vit.pth": {"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 5, 8)},
        "stem.pth": {key.replace("conv1.", "conv1.0.", 1): value for key, value in state.items()},
        "empty.pth": {"epoch": 3},
        "list.pth": [1, 2],
        "trap.pth": {"model": state, "args": Trap()},
    }
    for name, content in made.items():
        torch.save(content, tmp_path / name)
    whole = (tmp_path / "small.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    safetensors.torch.save_file(state, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "words.pth").write_text("no weights")
    own = str(checkpoint.latest(trained))
    for (name, options), message in {
        ("gone.pth", ()): "checkpoint: .*gone.pth: no such checkpoint",
        ("small.pth", ()): r"small\.pth: its tensors fit resnet20 or plain20; say which with model\.name",
        (
            "small.pth",
            (("name", "resnet32"),),
        ): r"model\.name=resnet32: .* layer1\.3\.conv1\.weight is missing",
        ("small.pth", (("name", "resnet21"),)): r"model\.name: unknown name 'resnet21'",
        ("small.pth", (("ema", True),)): r"holds no moving average \(state_dict_ema or model_ema\)",
        ("vit.pth", ()): r"none of our networks: 2 tensors, cls_token 1x1x8, pos_embed 1x5x8, .*nor a VGG",
        ("stem.pth", ()): r"none of our networks: like resnet18, but conv1\.weight is missing",
        ("empty.pth", ()): "holds no weights: neither a state_dict, nor one as",
        ("list.pth", ()): "holds no weights",
        ("trap.pth", ()): r"trap\.pth: holds .* beside tensors; save its state_dict alone",
        ("cut.pth", ()): r"cut\.pth: damaged or cut off",
        ("cut.safetensors", ()): r"cut\.safetensors: damaged or cut off",
        ("words.pth", ()): r"words\.pth: damaged or cut off",
        (own, (("name", "resnet20"),)): "model.name=resnet20: .* holds a resnet8",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            Backbone.read(str(tmp_path / name), **dict(options))
        assert "\n" not in str(caught.value)
    either = [Backbone.read(str(tmp_path / "small.pth"), name=name) for name in ("plain20", "resnet20")]
    assert either[0].about == Model(name="plain20")
    assert either[0].digest != either[1].digest, "one's features are not the other's"


@pytest.mark.parametrize(
    ("name", "stages", "side"), [("resnet18", 4, 64), ("resnet8", 3, 32), ("vgg11", 5, 64)]
)
def test_depths_are_the_stages_outputs_averaged(name, stages, side):
    torch.manual_seed(0)
    model = build(name, 4, **({"width": 0.125} if name == "vgg11" else {})).eval()
    seen = []
    for stage in model.stages:
        model.get_submodule(stage).register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        *found, last = model.depths(images)
        assert torch.equal(last, model.embed(images))
    assert len(found) == stages
    for ours, out in zip(found, seen[:stages], strict=True):
        assert torch.allclose(ours, out.flatten(2).mean(2), atol=1e-6)
    sizes = [out.shape[2] for out in seen[:stages]]
    assert sizes == sorted(sizes, reverse=True)
    if name != "vgg11":
        assert torch.allclose(found[-1], last, atol=1e-6), (
            "the head of a ResNet sees the last stage's average"
        )
