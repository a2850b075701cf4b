"""Gradients: what they go through from the last layer to the first, in plain and residual nets."""

from functools import cached_property

import numpy as np

from pipeline.config import StudyConfig, TrainConfig, UserError
from pipeline.study import gradient_plots as plots
from pipeline.study import looking
from pipeline.study.members import Key
from pipeline.study.page import Page, Panel, Table, Verdict
from pipeline.study.seeds import COSINE, Interval, judge, judge_all, over_seeds, over_seeds_of_logs
from pipeline.study.trained import Trained

NETS = ("plain20", "plain56", "resnet20", "resnet56")
LAG = 1
"""On a line between two pictures, of the autocorrelation that is compared."""
NEEDED = (
    *NETS,
    "plain20-bare-gauss",
    "plain56-bare-gauss",
    "plain56-bare",
    "resnet56-bare",
    "resnet56-bare-gauss",
)
"""What the verdicts are about; members beside them are drawn or tabled."""


def check(study: StudyConfig, configs: dict[Key, TrainConfig]) -> None:
    """:raises UserError: a member that the verdicts are about is missing, or not what its name says."""
    for name in NEEDED:
        if name not in study.members:
            raise UserError(f"members: {name} is missing; the page compares {', '.join(NEEDED)}")
    for (member, _), config in configs.items():
        net = member.partition("-")[0]
        if config.model.name != net:
            raise UserError(f"members.{member}: {config.model.name} goes by its own name in this study")
    if 0 not in study.look.at:
        raise UserError(f"look.at: {study.look.at} lacks 0, the net as it was drawn; write [0, ...]")


class Looked:
    """All looks of a finished study."""

    def __init__(self, trained: Trained):
        self.trained, self.study = trained, trained.study

    @cached_property
    def _all(self) -> dict[tuple[str, int, int], dict]:
        found = {}
        for (member, seed), config in self.trained.configs.items():
            for step in self.study.look.at:
                if (look := looking.read(config, step)) is not None:
                    found[member, seed, step] = look
        return found

    @property
    def nets(self) -> list[str]:
        return [net for net in NETS if net in self.study.members]

    def of(self, member: str, key: str, step: int = 0) -> np.ndarray:
        """(S, …) of all seeds, NaN where a figure is not finite."""
        found = [self._all[member, seed, step][key] for seed in self.study.seeds]
        return np.array(found, np.float64)

    def steps(self, member: str) -> list[int]:
        """After which the member was looked at."""
        return [0] if member in self.study.untrained else self.study.look.at

    @property
    def last(self) -> int:
        return max(self.study.look.at)


def page(trained: Trained) -> Page:
    looked = Looked(trained)
    figures = [
        ("norms", "Norms of the gradient, layer by layer", plots.norms, "∂L/∂zᵢ = (∏ⱼ₌ᵢ ∂zⱼ₊₁/∂zⱼ)ᵀ ∂L/∂z_N",
         "As drawn, relative to the last layer; thick: geometric mean over seeds, bands: least to greatest. "
         "Falling towards the input (left): vanishing; rising: exploding."),
        ("jacobians", "The product of Jacobians", plots.jacobians, "∂z_N/∂zᵢ = ∏ⱼ₌ᵢ ∂zⱼ₊₁/∂zⱼ",
         "As drawn, of a whole batch at once. Lines: by how much a random vector is stretched, √(Σσ²/dim); "
         "triangles: the largest singular value, by power iteration."),
        ("spectrum", "Around 1", plots.spectrum, "plain: ∂z′/∂z = ∂F/∂z     residual: ∂z′/∂z = ∂F/∂z + I",
         "All eigenvalues of the Jacobian of the middle block of the last stage, before its last ReLU, as "
         "drawn and with the statistics of batch norm held fixed; the cross stands at 1."),
        ("noise", "Noise between mini-batches", plots.noise, "signal / noise = ‖g‖² / E‖g_k − g‖²",
         f"Gradients of each block's weights over {looked.study.look.batches} mini-batches of "
         f"{looked.study.look.pictures} pictures, from pale (as drawn) to dark (step {looked.last}). Where "
         "the estimate of the signal is below zero no point is drawn."),
        ("shattering", "Shattering", plots.shattering, "C(τ) = mean⟨g_t, g_{t+τ}⟩ / mean‖g_t‖²",
         "Autocorrelation of ∂⟨u, logits⟩/∂x on straight lines from picture to picture, as drawn, mean over "
         "lines and seeds. White noise falls to 0 at once (Balduzzi et al. 2017)."),
        ("redraw", "Early gradients depend on random later layers", plots.redraw,
         "cos(g, g′): the same stem and stage 1, later layers drawn anew",
         "Mean cosine of the gradients of stem and first stage over draws of all that follows, on the same "
         "pictures; dots: seeds, bars: 95 % intervals. At later steps the early layers are trained ones."),
    ]  # fmt: skip
    panels = [
        Panel(name, heading, lambda look, draw=draw: draw(looked, look), formula, reading)
        for name, heading, draw, formula, reading in figures
    ]
    return Page(
        "Gradients in plain and residual nets", verdicts(looked), told(looked), [], panels, [table(looked)]
    )


def told(looked: Looked) -> list[str]:
    study = looked.study
    first = (
        f"{len(study.members)} nets × {len(study.seeds)} seeds, all looked at as drawn; "
        f"{len(study.members) - len(study.untrained)} of them are trained, and looked at after steps "
        f"{', '.join(str(step) for step in study.look.at if step)} too."
    )
    return [first, *looked.trained.told()]


def fall(looked: Looked, member: str, step: int = 0) -> np.ndarray:
    """(S,) decades from the gradient at z_N to the one at z₀: below 0 it vanishes, above it explodes."""
    norms = np.maximum(looked.of(member, "norms", step), 1e-45)  # float32's least
    return np.log10(norms[:, 0] / norms[:, -1])


def verdicts(looked: Looked) -> list[Verdict]:
    return [*_vanishing(looked), *_identity(looked), *_noise(looked)]


def _vanishing(looked: Looked) -> list[Verdict]:
    def gap(more: str, less: str) -> Interval:
        return over_seeds(np.abs(fall(looked, more)) - np.abs(fall(looked, less)))

    gauss = over_seeds(-fall(looked, "plain56-bare-gauss") + fall(looked, "plain20-bare-gauss"))
    he = gap("plain56-bare-gauss", "plain56-bare")
    kept = over_seeds(fall(looked, "plain56"))
    normed, bare = gap("plain56", "resnet56"), gap("plain56-bare-gauss", "resnet56-bare-gauss")
    by_he = [over_seeds(fall(looked, net)).told("{:+.1f}") for net in ("plain56-bare", "resnet56-bare")]
    return [
        Verdict(
            "Drawn with one width, without batch norm, gradients vanish the more the deeper a plain net is",
            "Glorot & Bengio 2010; He et al. 2015 (arXiv:1502.01852), section 2.2",
            f"from output to input 56 layers lose {gauss.told()} decades more than 20",
            judge(gauss),
        ),
        Verdict(
            "Drawn by He et al., a plain net's gradients keep their size better",
            "He et al. 2015 (arXiv:1502.01852), section 2.2",
            f"the change over 56 layers is {he.told()} decades smaller",
            judge(he),
        ),
        Verdict(
            "Shortcuts keep the gradient's size, without batch norm and drawn with one width",
            "He et al. 2016 (arXiv:1603.05027), equation 5",
            f"over 56 layers it changes by {bare.told()} decades less than without shortcuts",
            judge(bare),
        ),
        Verdict(
            "Shortcuts keep the gradient's size, without batch norm and drawn by He et al.",
            "He et al. 2016 (arXiv:1603.05027), equation 5",
            f"over 56 layers with shortcuts: {by_he[1]} decades; without: {by_he[0]}",
            judge(gap("plain56-bare", "resnet56-bare")),
        ),
        Verdict(
            "With batch norm, plain gradients do not vanish, and change more than with shortcuts",
            "He et al. 2015, section 4.1; Yang et al. 2019 (arXiv:1902.08129): batch norm alone explodes",
            f"over 56 layers plain: {kept.told('{:+.1f}')} decades; with shortcuts {normed.told()} less",
            judge_all(kept, normed),
        ),
    ]


def _identity(looked: Looked) -> list[Verdict]:
    means = {net: looked.of(net, "eigenvalues")[:, :, 0].mean(1) for net in ("plain20", "resnet20")}
    gap = over_seeds(means["resnet20"] - means["plain20"])
    return [
        Verdict(
            "A residual block's Jacobian is the plain one's plus I",
            "the lectures; He et al. 2016 (arXiv:1603.05027), equation 5",
            f"mean eigenvalue with shortcut {over_seeds(means['resnet20']).told('{:.2f}')}, without "
            f"{over_seeds(means['plain20']).told('{:.2f}')}",
            judge(gap, 0.5),
        )
    ]


def _noise(looked: Looked) -> list[Verdict]:
    def cosines(member: str, step: int) -> tuple[np.ndarray, np.ndarray]:
        found = looked.of(member, "cosine", step)[:, :-1]  # without the head
        third = found.shape[1] // 3
        return found[:, :third].mean(1), found[:, -third:].mean(1)

    out = []
    for net, word in (("plain56", "plain"), ("resnet56", "residual")):
        early, late = cosines(net, 0)
        gap = over_seeds(late - early)
        out.append(
            Verdict(
                f"As drawn, early layers' gradients are noisier than later ones' ({word}, 56 layers)",
                "the lectures",
                f"cosine between mini-batches: first third {over_seeds(early, COSINE).told('{:.3f}')}, "
                f"last third {over_seeds(late, COSINE).told('{:.3f}')}",
                judge(gap),
            )
        )
    at = {net: looked.of(net, "autocorrelation")[:, LAG] for net in NETS}
    deeper, shorter = over_seeds(at["plain20"] - at["plain56"]), over_seeds(at["resnet56"] - at["plain56"])
    places = looked.study.look.places - 1
    return [
        *out,
        Verdict(
            "A plain net's gradients shatter with depth: neighbouring inputs' gradients agree less",
            "Balduzzi et al. 2017 (arXiv:1702.08591), figure 1",
            f"C at 1/{places} of the way between pictures is {deeper.told('{:.2f}')} lower with 56 layers "
            "than with 20",
            judge(deeper),
        ),
        Verdict(
            "Shortcuts resist shattering",
            "Balduzzi et al. 2017, figure 1 and theorem 3",
            f"with 56 layers C is {shorter.told('{:.2f}')} higher than without",
            judge(shorter),
        ),
        *_redrawn(looked),
    ]


def _redrawn(looked: Looked) -> list[Verdict]:
    found = []
    for word, name in (("", "with batch norm"), ("-bare", "without batch norm")):
        plain, residual = (looked.of(f"{net}{word}", "redrawn") for net in ("plain56", "resnet56"))
        found.append(
            Verdict(
                "An early layer's gradient depends less on random later layers where there are shortcuts "
                f"({name})",
                "the lectures",
                f"as drawn, 56 layers: cosine with shortcuts {over_seeds(residual, COSINE).told('{:.2f}')}, "
                f"without {over_seeds(plain, COSINE).told('{:.2f}')}",
                judge(over_seeds(residual - plain)),
            )
        )
    return found


def table(looked: Looked) -> Table:
    rows = []
    for member in looked.study.members:
        whole = over_seeds_of_logs(looked.of(member, "typical")[:, 0])
        largest = over_seeds_of_logs(looked.of(member, "largest")[:, 0])
        rows.append(
            [
                member,
                over_seeds(fall(looked, member)).told("{:+.2f}"),
                whole.told("{:.2g}"),
                largest.told("{:.2g}"),
                over_seeds(looked.of(member, "autocorrelation")[:, LAG]).told("{:.2f}"),
                over_seeds(looked.of(member, "redrawn"), COSINE).told("{:.3f}"),
            ]
        )
    return Table(
        "As drawn",
        [
            "member",
            "log₁₀ ‖∂L/∂z₀‖/‖∂L/∂z_N‖",
            "typical σ of ∂z_N/∂z₀",
            "largest σ",
            f"C({LAG})",
            "redrawn cos",
        ],
        rows,
        "σ: geometric means. bare: without batch norm; gauss: drawn as N(0, 0.1²) (Simonyan & Zisserman "
        "2014, section 3.1), whatever a layer's width.",
    )
