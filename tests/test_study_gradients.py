"""The study of gradients: closed forms on linear nets, autograd on small ones, and its page."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, config_tree
from torch import nn

from launch.study import main
from pipeline.config import GradientStudyConfig, Looks, UserError, load
from pipeline.files import write_whole
from pipeline.models import build
from pipeline.study.chain import Chain, before_relu, by_batch, by_fixed
from pipeline.study.gradients import Looked, verdicts
from pipeline.study.jacobian import Linear, eigenvalues
from pipeline.study.looking import file_of, train_and_look
from pipeline.study.looks import Seen, backward, jacobians, look, redraw, shattering, spectrum
from pipeline.study.members import Members
from pipeline.study.noise import agreement, along_line, autocorrelation, gradients, signal_to_noise
from pipeline.study.seeds import AGREES, DIFFERS
from pipeline.study.trained import Trained
from pipeline.train.ranks import join

LOOKS = Looks(at=[0], pictures=6, batches=3, linear=2, points=3, iterations=40, probes=100, lines=2, places=8)


def drawn(name: str, seed: int = 0, **switches):
    torch.manual_seed(seed)
    return build(name, 5, width=0.25, **switches)


def seen(count: int = 6, side: int = 8, seed: int = 0) -> Seen:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, side, side, generator=generator)
    return Seen(images, torch.randint(0, 5, (count,), generator=generator))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def matrix(singular: list[float], seed: int) -> torch.Tensor:
    """A square matrix with these singular values."""
    rng = torch.Generator().manual_seed(seed)
    size = len(singular)
    left, right = (torch.linalg.qr(torch.randn(size, size, generator=rng))[0] for _ in range(2))
    return left @ torch.diag(torch.tensor(singular)) @ right


# --- linear nets: products of matrices ---------------------------------------------------------------------


def test_a_matrix_gives_its_own_singular_values():
    singular = [5.0, 2.0, 1.0, 0.5, 0.1]
    a = matrix(singular, 0)
    linear = Linear(lambda x: x @ a.T, torch.zeros(5))
    v = torch.arange(5.0)
    torch.testing.assert_close(linear.times(v), a @ v)
    torch.testing.assert_close(linear.transposed(v), a.T @ v)
    assert linear.largest(50, generator()) == pytest.approx(5.0, rel=1e-4)
    assert linear.typical(1000, generator()) == pytest.approx(np.sqrt(np.mean(np.square(singular))), rel=0.05)


def test_a_chain_of_linear_layers_is_the_product_of_its_matrices():
    """Ten layers with a singular vector in common: its singular values multiply, and vanish or explode."""
    for value, reached in ((0.5, 0.5**10), (2.0, 2.0**10)):
        a = torch.diag(torch.tensor([value, value / 2, value / 4]))

        def net(x, a=a):
            for _ in range(10):
                x = x @ a.T
            return x

        linear = Linear(net, torch.ones(3))
        assert linear.largest(30, generator()) == pytest.approx(reached, rel=1e-4)


def test_a_shortcut_adds_the_identity():
    a = matrix([0.3, 0.2, 0.1, 0.05], 2)
    plain = eigenvalues(lambda x: x @ a.T, torch.ones(4))
    residual = eigenvalues(lambda x: x + x @ a.T, torch.ones(4))
    np.testing.assert_allclose(np.sort_complex(residual), np.sort_complex(plain + 1), atol=1e-6)
    linear = Linear(lambda x: x + x @ a.T, torch.ones(4))
    assert 1 - 0.3 <= linear.largest(50, generator()) <= 1 + 0.3, "Weyl's bound"


@pytest.mark.parametrize("norm", [True, False])
def test_a_residual_blocks_jacobian_is_the_plain_ones_plus_one(norm):
    """∂z′/∂z = ∂F/∂z + I at the same z, by the modules that are trained."""
    plain, residual = drawn("plain14", norm=norm), drawn("resnet14", norm=norm)
    residual.load_state_dict(plain.state_dict())
    pictures = seen()
    blocks = [Chain(by_fixed(net, pictures.images)).blocks[5] for net in (plain, residual)]
    blocks[1].load_state_dict(blocks[0].state_dict())  # each had the statistics of its own pictures
    z = torch.randn(1, 16, 2, 2, generator=generator())
    values = [np.sort_complex(eigenvalues(before_relu(block), z)) for block in blocks]
    np.testing.assert_allclose(values[1], np.sort_complex(values[0] + 1), atol=1e-4)


# --- small nets: autograd's own figures -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain14", "resnet14"])
def test_a_chain_is_the_net(name):
    model, pictures = drawn(name), seen()
    copied = by_batch(model)
    chain = Chain(copied)
    outputs, logits = chain.outputs(pictures.images)
    torch.testing.assert_close(logits, model.train()(pictures.images))
    assert len(outputs) == len(chain.blocks) + 1 == 7
    torch.testing.assert_close(chain.from_to(2, 6)(outputs[2]), outputs[6])
    for block, before, after in zip(chain.blocks, outputs, outputs[1:], strict=False):
        torch.testing.assert_close(before_relu(block)(before).relu(), after)


def test_norms_are_those_that_autograd_keeps():
    model, pictures = by_batch(drawn("resnet14")), seen()
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    for block in Chain(model).blocks:
        block.register_forward_hook(keep)
    nn.functional.cross_entropy(model(pictures.images), pictures.labels).backward()
    found = backward(Chain(by_batch(drawn("resnet14"))), pictures)["norms"]
    assert found[1:] == pytest.approx([float(each.grad.norm()) for each in kept], rel=1e-5)


@pytest.mark.parametrize("name", ["plain14", "resnet14"])
def test_the_product_is_the_exact_jacobians(name):
    """Largest and typical singular values against those of the matrix, written down."""
    chain, images = Chain(by_batch(drawn(name))), seen(2).images
    found = jacobians(chain, images, LOOKS, generator())
    assert list(found["points"]) == [0, 2, 5]  # 2.5 is rounded to the even one
    outputs, _ = chain.outputs(images)
    for place, point in enumerate(found["points"]):
        z = outputs[point].detach()
        f = chain.from_to(int(point), 6)
        exact = torch.func.jacrev(lambda flat, f=f, z=z: f(flat.view(z.shape)).flatten())(z.flatten())
        singular = torch.linalg.svdvals(exact.detach())
        assert found["largest"][place] == pytest.approx(float(singular[0]), rel=1e-3)
        typical = float((singular.square().sum() / z.numel()).sqrt())
        assert found["typical"][place] == pytest.approx(typical, rel=0.1)


def test_gradients_by_part_are_those_of_the_parameters():
    model, pictures = by_batch(drawn("resnet8")), seen()
    found = torch.cat(gradients(Chain(model), pictures.images, pictures.labels))
    nn.functional.cross_entropy(model(pictures.images), pictures.labels).backward()
    torch.testing.assert_close(found, torch.cat([each.grad.flatten() for each in model.parameters()]))


def test_copies_leave_the_model_as_it_was():
    model = drawn("resnet8")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pictures = seen(4)
    by_batch(model)(pictures.images)
    by_fixed(model, pictures.images)
    redraw(model, pictures, lambda draw: drawn("resnet8", draw + 9), 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fixed_statistics_are_of_the_pictures_shown():
    model, images = drawn("plain8"), seen(64).images
    fixed = by_fixed(model, images)
    torch.testing.assert_close(fixed(images), model.train()(images), rtol=0.05, atol=0.05)
    torch.testing.assert_close(fixed(images[:1]), fixed(images)[:1])


# --- agreement ---------------------------------------------------------------------------------------------


def test_agreement_is_the_mean_cosine_of_pairs():
    assert agreement(torch.tensor([[1.0, 0], [2.0, 0], [7.0, 0]])) == pytest.approx(1)
    assert agreement(torch.eye(4)) == pytest.approx(0)
    assert agreement(torch.tensor([[1.0, 0], [-3.0, 0]])) == pytest.approx(-1)
    vectors = torch.randn(5, 20, generator=generator())
    unit = nn.functional.normalize(vectors)
    cosines = (unit @ unit.T)[~torch.eye(5, dtype=torch.bool)]
    assert agreement(vectors) == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert agreement(torch.zeros(2, 3)) == 0


def test_signal_to_noise_is_unbiased():
    """|g|² = 4 under noise of E|ε|² = 2, from pairs alone: signal and noise are right in the mean."""
    g, rng = torch.tensor([2.0, 0, 0, 0]), generator()
    noise = (2 / 4) ** 0.5 * torch.randn(4000, 4, generator=rng)
    assert signal_to_noise(g + noise) == pytest.approx(2, rel=0.05)
    pairs = (g + noise).view(-1, 2, 4)
    mean, squares = pairs.mean(1).square().sum(1).mean(), pairs.square().sum(2).mean()
    assert float(2 * mean - squares) == pytest.approx(4, rel=0.05)
    assert np.isnan(signal_to_noise(g.repeat(3, 1)))


def test_a_linear_nets_gradient_is_the_same_everywhere_and_noise_is_not():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    start, end = torch.randn(2, 3, 4, 4, generator=generator())
    gradient = along_line(net, start, end, 10, torch.ones(5))
    assert autocorrelation(gradient, 5) == pytest.approx([1] * 5)
    expected = net[1].weight.sum(0).view(3, 4, 4)
    torch.testing.assert_close(gradient[7], expected)
    white = autocorrelation(torch.randn(500, 100, generator=generator()), 4)
    assert white[0] == pytest.approx(1)
    assert white[1:] == pytest.approx([0, 0, 0], abs=0.02)
    alternating = torch.tensor([1.0, -1.0]).repeat(5)[:, None]
    assert autocorrelation(alternating, 3) == pytest.approx([1, -1, 1])


def test_later_layers_alone_are_redrawn():
    model, pictures = drawn("resnet8"), seen()
    assert redraw(model, pictures, lambda draw: drawn("resnet8"), 2) == pytest.approx(1)
    assert redraw(model, pictures, lambda draw: drawn("resnet8", draw + 1), 3) < 0.9


# --- whole looks -------------------------------------------------------------------------------------------


def whole_look(name: str) -> dict:
    shown = [seen(seed=each) for each in range(LOOKS.batches)]
    return look(
        drawn(name),
        shown,
        lambda draw: drawn(name, draw + 1),
        LOOKS.model_copy(update={"probes": 2, "iterations": 3}),
        seed=3,
    )


def test_the_same_seed_gives_the_same_figures():
    one, other = whole_look("resnet14"), whole_look("resnet14")
    assert one == other
    assert json.loads(json.dumps(one)) == one
    assert len(one["norms"]) == 7
    assert len(one["snr"]) == len(one["cosine"]) == 8


def test_figures_do_not_depend_on_torchs_own_dice():
    one = shattering(by_fixed(drawn("plain8"), seen().images), seen().images, LOOKS, generator())
    torch.rand(10)
    other = shattering(by_fixed(drawn("plain8"), seen().images), seen().images, LOOKS, generator())
    np.testing.assert_array_equal(one, other)


def test_a_stage_of_one_block_has_no_square_jacobian():
    assert spectrum(Chain(by_fixed(drawn("resnet8"), seen().images)), seen().images[:1]) == {
        "eigenvalues": []
    }


def test_one_width_for_all_layers():
    model = drawn("plain8", conv_std=0.1)
    weights = torch.cat([m.weight.detach().flatten() for m in model.modules() if isinstance(m, nn.Conv2d)])
    assert float(weights.std()) == pytest.approx(0.1, rel=0.05)
    with pytest.raises(UserError, match=r"conv_std=0: must be above 0"):
        build("plain8", 5, conv_std=0)


def shipped_study(index, runs, **changes):
    """The shipped study of gradients on small pictures; its config file too."""
    tree = yaml.safe_load((ROOT / "configs/study/gradients.yaml").read_text()) | {"runs": str(runs)}
    quick = config_tree(index, runs, model__width=0.25, train__epochs=0.19)
    tree["run"] = {key: value for key, value in quick.items() if key not in ("name", "runs")}
    tree |= changes
    file = runs / "gradients.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    study = load(GradientStudyConfig, file)
    return study, study.trainings(str(file))


def test_where_shortcuts_do_not_keep_a_gradients_size_the_page_says_so(small_index, tmp_path):
    """Looks that say what the shipped study found: without batch norm, drawn by He et al., they explode."""
    study, configs = shipped_study(small_index, tmp_path)
    falls = {
        "plain56-bare": -1.5,
        "resnet56-bare": 3.9,
        "plain56-bare-gauss": -13.0,
        "resnet56-bare-gauss": 0.8,
    }
    for (member, seed), config in configs.items():
        found = {"norms": [10 ** (falls.get(member, 0.5) + 0.01 * seed), 1.0], "eigenvalues": [[1.0, 0.0]]}
        found |= {"cosine": [0.1, 0.2, 0.3, 0.4], "autocorrelation": [1.0, 0.5], "redrawn": 0.5}
        for step in study.look.at:
            write_whole(file_of(config, step), json.dumps({"settings": {}, "found": found}).encode())
    told = {each.claim: each for each in verdicts(Looked(Trained(study, configs)))}
    kept = "Shortcuts keep the gradient's size, without batch norm and drawn "
    assert told[f"{kept}with one width"].agrees == AGREES
    by_he = told[f"{kept}by He et al."]
    assert by_he.agrees == DIFFERS
    assert by_he.found.startswith("over 56 layers with shortcuts: +3.9 [")
    assert "without: −1.5 [" in by_he.found


def test_a_look_may_take_longer_than_a_rank_may_stand_still(small_index, tmp_path):
    nets = {"resnet8": {"model.name": "resnet8"}}
    few = LOOKS.model_dump() | {"iterations": 1, "probes": 1}
    study, configs = shipped_study(
        small_index, tmp_path, members=nets, untrained=["resnet8"], seeds=[0], look=few
    )
    with join("cpu", hang_timeout=900) as ranks:
        train_and_look(study, Members(configs, ranks))
        phase = ranks.watchdog._mine
    assert (phase.phase, phase.long) == ("looking", True)


@pytest.fixture(scope="module")
def done(small_index, tmp_path_factory):
    """The shipped study of small pictures, one seed, by its own door."""
    folder = tmp_path_factory.mktemp("gradients")
    tree = yaml.safe_load((ROOT / "configs/study/gradients.yaml").read_text())
    tree |= {"runs": str(folder), "seeds": [0]}
    quick = config_tree(small_index, folder, model__width=0.25, train__epochs=0.19)
    tree["run"] = {key: value for key, value in quick.items() if key not in ("name", "runs")}
    tree["run"] |= {"optim": {"lr": 0.1}, "checkpoint": {"every": 0.096, "keep": 5}}
    tree["run"]["data"]["pictures"]["size"] = 8
    tree["look"] = LOOKS.model_dump() | {"at": [0, 2], "iterations": 2, "probes": 1}
    file = folder / "gradients.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    main(["gradients", str(file)])
    return folder, file


@pytest.mark.slow
def test_the_page_of_gradients(done):
    folder, file = done
    out = folder / "gradients"
    assert len(list(out.glob("*/looks/*.json"))) == 2 * 2 + 14
    text = (out / "study.md").read_text()
    for part in ("∂z_N/∂zᵢ = ∏", "Balduzzi et al. 2017", "∂F/∂z + I", "cos(g, g′)"):
        assert part in text
    assert {each.stem for each in (out / "plots").iterdir()} == {
        "norms", "jacobians", "spectrum", "noise", "shattering", "redraw",
    }  # fmt: skip
    before = {each: each.stat().st_mtime_ns for each in out.glob("*/looks/*.json")}
    study = load(GradientStudyConfig, file)
    with join("cpu") as ranks:
        train_and_look(study, Members(study.trainings(str(file)), ranks))
    assert {each: each.stat().st_mtime_ns for each in out.glob("*/looks/*.json")} == before
