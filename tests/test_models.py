"""The pattern's switches, its interface, and how it compiles and trains."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.models import ConvNet, build
from pipeline.models.net import GridPool, Pad, Residual

# One of each kind, cheap at 32x32.
KINDS = ["resnet20", "plain20", "resnet18", "resnet50", "vgg11", "vgg11_bn"]


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    """Tiny tensors: threads only wait for each other, badly so on a busy machine. And the same weights."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(name: str, classes: int = 10, **switches) -> ConvNet:
    """A narrow net: the same structure at a sixty-fourth of the arithmetic."""
    return build(name, classes, width=0.125, **switches)


def pictures(count: int = 2, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {key: parameter.shape for key, parameter in net.named_parameters()}


@pytest.mark.parametrize("depth", [8, 20, 56, 18, 34])
def test_plain_nets_are_residual_nets_without_the_shortcut(depth):
    """Option A adds no parameter: same names, same shapes; so the weights go over, and the outputs differ."""
    plain, residual = small(f"plain{depth}").eval(), small(f"resnet{depth}", shortcut="pad").eval()
    assert shapes(plain) == shapes(residual)
    plain.load_state_dict(residual.state_dict(), strict=True)
    with torch.no_grad():
        assert (plain(pictures()) - residual(pictures())).abs().max() > 1e-3


def test_projection_stands_only_where_shapes_change():
    def projected(net: nn.Module) -> set[str]:
        return {key.partition(".downsample")[0] for key in net.state_dict() if ".downsample." in key}

    assert projected(small("resnet20", shortcut="projection")) == {"layer2.0", "layer3.0"}
    assert projected(small("resnet20")) == set()
    assert projected(small("resnet50")) == {"layer1.0", "layer2.0", "layer3.0", "layer4.0"}
    assert projected(small("resnet50", shortcut="pad")) == set()


def test_padding_subsamples_and_appends_zeros():
    x = pictures(2, 7)
    found = Pad(extra=5, stride=2)(x)
    assert found.shape == (2, 8, 4, 4)
    assert torch.equal(found[:, :3], nn.functional.max_pool2d(x, kernel_size=1, stride=2))
    assert not found[:, 3:].any()


@pytest.mark.parametrize(
    ("height", "width", "plain"),
    [
        (7, 7, True),
        (14, 7, True),
        (14, 14, True),
        (21, 21, True),
        (1, 1, False),
        (8, 8, False),
        (7, 15, False),
    ],
)
def test_a_pool_to_a_grid_is_the_adaptive_one(height, width, plain):
    """Values and gradients; where the grid divides the positions no adaptive pass is left in the graph."""
    outputs, gradients = [], []
    for pool in (GridPool(7), nn.AdaptiveAvgPool2d(7)):
        x = torch.randn(2, 3, height, width, dtype=torch.double, generator=torch.Generator().manual_seed(1))
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        y = pool(2 * x)
        assert y.shape == (2, 3, 7, 7)
        outputs.append(y)
        (y * torch.arange(49.0).view(7, 7)).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*outputs, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(*gradients, rtol=1e-14, atol=1e-14)
    assert [type(y.grad_fn).__name__.startswith("Adaptive") for y in outputs] == [not plain, True]


@pytest.mark.parametrize("size", [224, 448, 320])
def test_vgg_pools_to_its_grid_without_a_name_in_the_weights(size):
    net = build("vgg11", 3, width=0.02).eval()
    reference = copy.deepcopy(net)
    reference.avgpool = nn.AdaptiveAvgPool2d(7)
    assert list(net.state_dict()) == list(reference.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(pictures(1, size)), reference(pictures(1, size)))
    assert type(build("resnet18", 3, width=0.02).avgpool) is nn.AdaptiveAvgPool2d, "a mean, as it was"


def run_blocks(net: ConvNet, x: torch.Tensor) -> list[tuple[Residual, torch.Tensor, torch.Tensor]]:
    """Each residual block with what went in and what came out."""
    seen = []
    blocks = [module for module in net.modules() if isinstance(module, Residual)]
    for block in blocks:
        block.register_forward_hook(lambda b, inputs, out: seen.append((b, inputs[0].clone(), out.clone())))
    with torch.no_grad():
        net(x)
    assert len(seen) == len(blocks) > 0
    return seen


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50"])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_zero_init_makes_every_block_its_shortcut(name, shortcut):
    """Also in training mode, where batch norm's statistics are the batch's."""

    def shortcut_alone(zero_init: bool) -> list[bool]:
        net = small(name, zero_init=zero_init, shortcut=shortcut).train()
        blocks = run_blocks(net, pictures(4))
        return [torch.equal(after, block.downsample(before).relu()) for block, before, after in blocks]

    assert all(shortcut_alone(zero_init=True))
    assert not any(shortcut_alone(zero_init=False))


def test_stride_stands_on_the_3x3():
    """ResNet v1.5: in a halving bottleneck conv2 has the stride, in a two-layer block conv1."""
    strides = {
        key: module.stride
        for key, module in build("resnet50", 10, width=0.125).named_modules()
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1)
    }
    halving = [f"layer{stage}.0.{conv}" for stage in (2, 3, 4) for conv in ("conv2", "downsample.0")]
    assert sorted(strides) == sorted(["conv1", *halving])
    assert set(strides.values()) == {(2, 2)}
    assert small("resnet18").layer2[0].conv1.stride == (2, 2)
    assert small("resnet18").layer2[0].conv2.stride == (1, 1)


def test_stages_halve_resolution_and_double_channels():
    """He et al. 2015, section 4.2 (32, 16, 8) and table 1 (56, 28, 14, 7); VGG after its pools."""

    def after(net: ConvNet, parts: list[str], size: int) -> list[tuple[int, ...]]:
        seen = []
        for part in parts:
            net.get_submodule(part).register_forward_hook(
                lambda _m, _i, out: seen.append(tuple(out.shape[1:]))
            )
        with torch.no_grad():
            net.eval()(pictures(1, size))
        return seen

    layers = [f"layer{stage}" for stage in (1, 2, 3, 4)]
    assert after(build("resnet20", 10), layers[:3], 32) == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    wide = [(32, 56, 56), (64, 28, 28), (128, 14, 14), (256, 7, 7)]
    assert after(small("resnet50"), layers, 224) == wide
    pools = [f"features.{i}" for i in (4, 9, 16, 23, 30)]  # torchvision's indices of vgg16's pools
    vgg = [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 2, 2)]
    assert after(small("vgg16"), pools, 64) == vgg


@pytest.mark.parametrize("name", KINDS)
def test_forward_is_head_of_embed(name):
    net = small(name, classes=7).eval()
    with torch.no_grad():
        features = net.embed(pictures(3))
        assert features.shape == (3, net.embed_dim)
        assert features.dtype == torch.float32
        assert torch.equal(net(pictures(3)), net.head(features))
    assert isinstance(net.head, nn.Linear)
    assert net.head is net.get_submodule(net.head_name)
    assert net.head_name == ("classifier.6" if name.startswith("vgg") else "fc")
    assert net.head.weight.shape == (7, net.embed_dim)
    assert {f"{net.head_name}.weight", f"{net.head_name}.bias"} <= net.state_dict().keys()


def test_embed_dims_are_the_papers():
    with torch.device("meta"):
        found = {name: build(name, 10).embed_dim for name in KINDS}
    wide = {"resnet18": 512, "resnet50": 2048, "vgg11": 4096, "vgg11_bn": 4096}
    narrow = build("vgg11", 10, width=0.25)
    assert found == {"resnet20": 64, "plain20": 64} | wide
    assert narrow.embed_dim == 1024  # width reaches the hidden layers too


@pytest.mark.parametrize("name", KINDS)
def test_reset_head_replaces_only_the_head(name):
    net = small(name, classes=10).double().eval()
    old_head = net.head
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x = pictures().double()
    with torch.no_grad():
        features = net.embed(x)
        net.reset_head(4)
        assert torch.equal(net.embed(x), features)
        assert net(x).shape == (2, 4)
    assert net.head is not old_head
    assert net.head.weight.dtype == torch.float64
    assert list(net.state_dict()) == list(before)  # same names in the same order
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert f"{net.head_name}.weight" in changed
    assert changed <= {f"{net.head_name}.weight", f"{net.head_name}.bias"}


def test_reset_head_is_initialised_as_the_first_was():
    vgg, resnet = build("vgg11", 10, width=0.25), build("resnet50", 10, width=0.25)
    vgg.reset_head(500)
    resnet.reset_head(500)
    assert vgg.head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not vgg.head.bias.any()
    bound = resnet.embed_dim**-0.5  # torch's uniform for nn.Linear
    assert resnet.head.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("norm", [True, False])
def test_norm_switch(name, norm):
    """Without batch norm every convolution has a bias; with it ResNets have none."""
    net = small(name, norm=norm)
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == (len(convs) if norm else 0)
    biased = not norm or name.startswith("vgg")
    assert all((conv.bias is not None) == biased for conv in convs)
    assert net(pictures()).isfinite().all()


def test_norm_makes_vgg_its_bn_namesake():
    assert shapes(small("vgg16", norm=True)) == shapes(small("vgg16_bn"))
    assert shapes(small("vgg16_bn", norm=False)) == shapes(small("vgg16"))


def test_dropout_switch():
    """The name's own: a half behind each hidden layer of VGG, none in ResNets; it only acts in training."""

    def rates(net: nn.Module) -> list[float]:
        return [module.p for module in net.modules() if isinstance(module, nn.Dropout)]

    assert rates(small("vgg11")) == [0.5, 0.5]
    assert rates(small("vgg11", dropout=0.0)) == [0.0, 0.0]
    assert rates(small("resnet20")) == [0.0]
    net = small("resnet20", dropout=0.9)
    assert rates(net) == [0.9]
    assert shapes(net) == shapes(small("resnet20"))
    net.eval()
    assert torch.equal(net(pictures()), net(pictures()))
    net.dropout.train()
    assert not torch.equal(net(pictures()), net(pictures()))


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(["resnet8", "plain8", "resnet18", "resnet50", "vgg11"]),
    width=st.floats(0.02, 0.3),
    pad=st.booleans(),
    classes=st.integers(1, 5),
    size=st.integers(32, 40),
)
def test_any_width_and_size_runs(name, width, pad, classes, size):
    """Also where rounding makes neighbouring stages equally wide, and for odd sizes."""
    shortcut = "pad" if pad and name.startswith("resnet") else None
    net = build(name, classes, width=width, shortcut=shortcut).eval()
    with torch.no_grad():
        assert net(pictures(1, size)).shape == (1, classes)
    own = {"resnet8": 64, "plain8": 64, "resnet18": 512, "resnet50": 2048, "vgg11": 4096}[name]
    expansion = 4 if name == "resnet50" else 1
    assert net.embed_dim == max(1, round(own // expansion * width)) * expansion


@pytest.mark.parametrize("name", ["resnet8", "plain8", "vgg11_bn"])
def test_compiles_as_one_graph(name):
    """No graph break, forward and backward, with the eager result."""
    net = small(name).train()
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    outputs = []
    for model in (compiled, twin):
        torch.manual_seed(1)  # VGG's dropout
        outputs.append(model(pictures(4)))
        outputs[-1].square().mean().backward()
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for (key, mine), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4 * scale + 1e-7, msg=key)


def test_a_pool_to_a_grid_compiles_whatever_the_size():
    """Also where a size is a symbol, as in a run whose pictures grow."""
    pool = GridPool(7)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    for side in (7, 14, 8, 21, 28):
        x = pictures(1, side)
        torch.testing.assert_close(compiled(x), nn.functional.adaptive_avg_pool2d(x, 7))


def test_trains_under_ddp(tmp_path):
    """Every parameter takes part: the second pass raises where one got no gradient in the first."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for name in ("resnet8", "plain8", "vgg11_bn"):
            net = small(name)
            model = DistributedDataParallel(net)
            for _ in range(2):
                model(pictures(4)).square().mean().backward()
            assert all(parameter.grad is not None for parameter in net.parameters())
    finally:
        torch.distributed.destroy_process_group()


def test_channels_last_gives_the_same_outputs():
    net = small("resnet20").eval()
    with torch.no_grad():
        expected = net(pictures())
        found = net.to(memory_format=torch.channels_last)(pictures().to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_switches_are_independent():
    """Every combination of a residual net's switches builds, runs and differentiates."""
    options = itertools.product([False, True], ["projection", "pad"], [True, False])
    for zero_init, shortcut, norm in options:
        if zero_init and not norm:
            continue
        net = small("resnet14", zero_init=zero_init, shortcut=shortcut, norm=norm)
        net(pictures(4)).square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
