"""The figures of the lectures' last slide, beside which a transfer table is read, and their sources."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figures:
    """In percent, as printed on the slide.

    :ivar frozen: "off the shelf". :ivar finetuned: "fine-tuned". :ivar before: the best without a
        convolutional network that the slide names; none where it names none.
    """

    frozen: float
    finetuned: float
    before: float | None
    source: str

    def __str__(self) -> str:
        return f"{self.frozen:.1f} → {self.finetuned:.1f}"


CNN_S = (
    "CNN-S of Chatfield et al. 2014; their page has 88.5 and 88.4 for Caltech-101, 79.6 and 82.4 for VOC 2007"
)
FC_CNN = "VGG-16, FC-CNN of Lin et al. 2015 [unconfirmed]"
SLIDE = {
    "caltech101": Figures(87.7, 88.4, None, CNN_S),
    "voc2007": Figures(79.7, 82.4, 61.7, CNN_S),
    "cub200": Figures(61.0, 70.4, 18.8, FC_CNN),
    "aircraft": Figures(45.0, 74.1, 61.0, FC_CNN),
    "cars": Figures(36.5, 79.8, 59.2, FC_CNN),
}
"""By the protocol's file. Older networks than ResNets, each on its own protocol: an anchor, not a rival."""
BEFORE = (
    "Fisher vectors, as the slide has them [unconfirmed]; for VOC 2007 Chatfield's page has some at 68.0, "
    "so they are not the best without a network"
)


def beside(transfer: dict[str, Any]) -> Figures | None:
    """The slide's figures for the dataset of a transfer file, by the protocol that its results name."""
    named = {str(result.get("protocol") or "") for result in transfer["results"]}
    found = {SLIDE.get(name.partition("-")[0]) for name in named}
    return found.pop() if len(found) == 1 else None


def reading(transfers: list[dict[str, Any]]) -> str:
    """What the column is, for a caption; empty where nothing stands in it."""
    shown = [figures for transfer in transfers if (figures := beside(transfer))]
    if not shown:
        return ""
    sources = "; ".join(dict.fromkeys(each.source for each in shown))
    words = f"the slide: the lectures' figures, frozen → finetuned, of older networks ({sources})"
    before = [
        f"{transfer['dataset']} {figures.before:.1f}"
        for transfer in transfers
        if (figures := beside(transfer)) and figures.before is not None
    ]
    return words + (f"; without a network: {', '.join(before)} ({BEFORE})" if before else "")
