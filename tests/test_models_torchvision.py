"""torchvision as the oracle: states both ways, a training pass, and the initialisation."""

import pytest
import torch
from torch import nn
from torchvision import models

from pipeline.models import build

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
VGGS = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    """Tiny tensors: threads only wait for each other, badly so on a busy machine. And the same weights."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_state(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Random parameters and buffers, batch-norm statistics too, at a scale that keeps signals alive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, like in model.state_dict().items():
        leaf = name.rpartition(".")[2]
        if leaf == "num_batches_tracked":
            state[name] = torch.tensor(seed + 1)
        elif leaf == "running_var" or (leaf == "weight" and like.dim() == 1):
            state[name] = torch.empty(like.shape).uniform_(0.5, 1.5, generator=generator)
        elif leaf in ("running_mean", "bias"):
            state[name] = torch.empty(like.shape).uniform_(-0.1, 0.1, generator=generator)
        else:  # variance 2 / fan-in keeps a ReLU chain's size
            bound = (6 / like[0].numel()) ** 0.5
            state[name] = torch.empty(like.shape).uniform_(-bound, bound, generator=generator)
    return state


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 64) for name in RESNETS), *((name, 32) for name in VGGS)]
)
def test_states_go_both_ways(name, size):
    """torchvision's state into ours, ours into another of torchvision's; strict, with equal outputs."""
    with torch.device("meta"):  # no memory until a state is assigned
        theirs, ours, back = models.get_model(name), build(name, 1000), models.get_model(name)
    theirs.load_state_dict(random_state(theirs, seed=3), strict=True, assign=True)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    back.load_state_dict(ours.state_dict(), strict=True, assign=True)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.eval()(x)
        assert expected.std() > 1e-3, "the comparison must be of a living signal"
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(back.eval()(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("resnet50", 64)])
def test_training_pass_equals_torchvision(name, size):
    """Outputs, gradients and the moved batch-norm statistics of a pass in training mode."""
    ours, theirs = build(name, 10), models.get_model(name, weights=None, num_classes=10)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, labels = torch.randn(4, 3, size, size), torch.tensor([1, 5, 5, 9])
    found, expected = ours.train()(x), theirs.train()(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for logits in (found, expected):
        nn.functional.cross_entropy(logits, labels).backward()
    reference = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        scale = reference[key].grad.abs().max().item()
        torch.testing.assert_close(parameter.grad, reference[key].grad, rtol=1e-4, atol=1e-5 * scale)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "own"), [("resnet18", {}), ("resnet50", {"zero_init": True})])
def test_one_seed_gives_torchvisions_resnet(name, own):
    """He fan-out for convolutions, torch's own for the head, zero-initialised norms: bit for bit."""
    torch.manual_seed(11)
    ours = build(name, 100, **own).state_dict()
    torch.manual_seed(11)
    zero = own.get("zero_init", False)
    theirs = models.get_model(name, weights=None, num_classes=100, zero_init_residual=zero)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours[key], value), key


def test_vgg_initialisation():
    """He fan-out with zero biases in the convolutions, N(0, 0.01^2) in the classifier, as torchvision's."""
    net = build("vgg16_bn", 7, width=0.25)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            assert not module.bias.any()
            assert module.weight.std().item() == pytest.approx(
                (2 / (9 * module.out_channels)) ** 0.5, rel=0.1
            )
        if isinstance(module, nn.Linear):
            assert not module.bias.any()
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
