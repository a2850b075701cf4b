"""From rounds to lines of the table. Ratios are taken within a round, and only then is their median."""

from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(median(values), min(values), max(values))

    @classmethod
    def middle(cls, values: list[float]) -> "Spread":
        """The middle half: quartiles instead of the extremes, which grow with the number of rounds."""
        low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(median(values), low, high)


def line(
    rounds: list[dict[str, Any]], reference: list[dict[str, Any]], threads: int, gpu_rates: list[float]
) -> dict[str, Any]:
    """A contestant's figures as JSON.

    :param rounds: what ``timing.measure`` told, one a round.
    :param reference: the same rounds of the contestant that all are compared with.
    :return: rate (pictures/s), per_core, per_cpu_second and ratio (this / reference), as
        {median, low, high}; cores_busy; cores_for: by GPU rate, the cores that feed it if rates grow in
        proportion to cores.
    """
    rates = [one["pictures"] / one["seconds"] for one in rounds]
    against = [one["pictures"] / one["seconds"] for one in reference]
    ratios = [mine / theirs for mine, theirs in zip(rates, against, strict=True)]
    rate = Spread.of(rates)
    return {
        "rate": asdict(rate),
        "per_core": asdict(Spread.of([value / threads for value in rates])),
        "per_cpu_second": asdict(Spread.of([one["pictures"] / one["cpu_seconds"] for one in rounds])),
        "ratio": asdict(Spread.of(ratios)),
        "cores_busy": median(one["cpu_seconds"] / one["seconds"] for one in rounds),
        "cores_for": {f"{wanted:g}": wanted * threads / rate.median for wanted in gpu_rates},
    }
