"""A whole study: its runs, then its page."""

from pathlib import Path

from pipeline.config import GradientStudyConfig, PrecomputeConfig, StudyConfig, TrainConfig, UserError
from pipeline.progress import say
from pipeline.study import depth, gradients, precompute, shortcuts, vgg
from pipeline.study.looking import train_and_look
from pipeline.study.members import Key, Members
from pipeline.study.page import write
from pipeline.study.trained import Trained
from pipeline.train import dry_run as dry_run_of
from pipeline.train import fit
from pipeline.train.ranks import Ranks

STUDIES = {"depth": depth, "vgg": vgg, "gradients": gradients, "shortcuts": shortcuts}
"""Each a module with `check`, before anything is trained, and `page`, of what was."""


def measure(study: PrecomputeConfig, ranks: Ranks, command: str) -> Path | None:
    """Measures what is not measured yet; the page's path, on the first rank.

    :raises Preempted: the job was asked to stop.
    """
    precompute.measure(study, ranks)
    if not ranks.first:
        return None
    page = precompute.page(study)
    page.commands.append(command)
    return write(page, study.folder)


def check(kind: str, study: StudyConfig, trainings: dict[Key, TrainConfig]) -> None:
    """:raises UserError: the page could not be written of these runs."""
    STUDIES[kind].check(study, trainings)
    for (member, _), config in trainings.items():
        if config.data.val is None and not isinstance(study, GradientStudyConfig):
            raise UserError(
                f"members.{member}: data.val is null, and the page shows errors on it; name a split"
            )


def dry_run(kind: str, study: StudyConfig, trainings: dict[Key, TrainConfig]) -> str:
    """A line for each run, after all that can be checked without training was checked.

    :raises UserError: the study cannot be made of these runs, or a run's config and its pictures do not go
        together.
    """
    check(kind, study, trainings)
    return "\n".join(f"{each.folder}: {dry_run_of(each).splitlines()[0]}" for each in trainings.values())


def run(
    kind: str, study: StudyConfig, trainings: dict[Key, TrainConfig], ranks: Ranks, command: str
) -> Path | None:
    """Trains what is not trained yet; the page's path, on the first rank, when all runs are done.

    :raises Preempted: the job was asked to stop, and has saved.
    """
    check(kind, study, trainings)
    members = Members(trainings, ranks)
    if isinstance(study, GradientStudyConfig):
        train_and_look(study, members)
    else:
        for _, job in members:
            fit(job)
    if not ranks.first:
        return None
    if members.elsewhere:
        names = ", ".join(trainings[key].name for key in members.elsewhere)
        say(f"another command works on {names}; when it is done, the same command writes the page")
        return None
    page = STUDIES[kind].page(Trained(study, trainings))
    page.commands.append(command)
    return write(page, study.folder)
