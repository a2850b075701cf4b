"""The training loop: the only one. Transfer finetunes and starts over with it too."""

import math
import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch
from torch import nn

from pipeline.config import UserError
from pipeline.data.batches import Batch, training_rows
from pipeline.data.index import Split
from pipeline.data.order import Order
from pipeline.monitor import Monitor
from pipeline.monitor.confusion import keep_confusion
from pipeline.monitor.gradients import GradientFlow
from pipeline.monitor.metrics import told_loss
from pipeline.monitor.profiler import Profiler
from pipeline.monitor.samples import keep_samples, spread
from pipeline.preempt import STOP, Preempted
from pipeline.train import resume
from pipeline.train.engine import Engine, Stepped, build_engine
from pipeline.train.job import Job
from pipeline.train.meter import Meter
from pipeline.train.nonfinite import NonFinite
from pipeline.train.optim import learning_rate
from pipeline.train.plan import Plan
from pipeline.train.ranks import Ranks
from pipeline.train.start import build_model
from pipeline.train.writer import Writer

SAMPLES = ("confusion.json", "samples.npz")
"""What a run keeps of its last evaluation for the report, in this order."""


def fit(job: Job) -> nn.Module:
    """Trains, or continues, to the last step; the trained model, the same on every rank.

    :raises Preempted: the job was asked to stop; everything is saved.
    :raises UserError: the config and the pictures, ranks or checkpoint do not go together.
    """
    config, ranks = job.config, job.ranks
    plan = Plan.of(config, len(job.train), ranks.world)
    STOP.end_after(config.train.time_limit, config.train.time_margin)
    state = resume.find(config, job.train.fingerprint, tell=ranks.first)
    if config.train.deterministic:
        # Without room of its own cuBLAS adds up in any order, and torch refuses to call it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.train.deterministic
    model = build_model(config, job.train.classes, ranks, begins=state is None)
    engine = build_engine(model, config, ranks)
    start = state["step"] if state else 0
    if not ranks.equal(start):
        raise UserError(
            f"runs: this rank finds step {start} in {config.folder}, another rank another step; "
            "put runs on a file system that all nodes share"
        )
    if state:
        engine.restore(state, start)
        # The engine has its own copy of weights, optimizer and average: a second one is not kept for the run.
        state = {key: state.get(key) for key in ("best", "best_of", "wandb_id")}
    about = (state and state["wandb_id"], job.evaluated)
    with Monitor(config, start, plan.steps, *about, first=ranks.first) as monitor:
        course = _Course(job, plan, engine, monitor, state)
        if start < plan.steps:
            course.run(start)
        else:
            course.make_up(start)
        course.finish()
    return engine.network()


class _Course:
    """The course of one run from its checkpoint, or its start, to its last step.

    :param state: of the checkpoint; none at the start.
    """

    def __init__(self, job: Job, plan: Plan, engine: Engine, monitor: Monitor, state: dict | None):
        self.job, self.plan, self.engine, self.monitor = job, plan, engine, monitor
        self.config, self.ranks = job.config, job.ranks
        best, self.best_of = resume.best(state, job.evaluated.get("val"))
        self.writer = Writer(job.config.folder, job.config.checkpoint, best)
        self.flow = GradientFlow(engine.model, self.config.train, self.ranks.world)

    def run(self, start: int) -> None:
        """Steps ``start`` + 1 to the last.

        :raises Preempted: everything is saved.
        """
        job, plan, engine, ranks = self.job, self.plan, self.engine, self.ranks
        ranks.at("start", start)
        side = plan.side(start) or self.config.data.pictures.size
        engine.prime((plan.micro_batch, 3, side, side))
        ranks.stop_if_asked(f"before step {start + 1}")
        self.make_up(start)
        batches = self._batches(start)
        row = self.monitor.trained
        meter = Meter(self.config, len(job.train), ranks, start, engine.phases, row)
        bad = NonFinite(self.config, job.train, ranks, start, row)
        profiler = Profiler(self.config.folder, self.config.monitor.profile, start, on=ranks.first)
        with profiler, closing(meter), closing(bad):
            for done in range(start + 1, plan.steps + 1):
                self._advance(done, batches, meter, bad)
                self._boundary(done, meter)
                if plan.evaluates(done) or plan.saves(done):
                    meter.restart(done)
                profiler.step(done)
        self._written()

    def make_up(self, start: int) -> None:
        """What a stop after step ``start`` cut short: the evaluation, or that it is kept as the best."""
        if not start or not self.plan.evaluates(start):
            return
        row = self.ranks.gather(self.monitor.found(start, "val"))[0]
        top1 = self._watch_validation(start) if row is None else self._best(row)
        if top1 is not None:
            self._save(start, top1)
            self._written()

    def finish(self) -> None:
        """Evaluates on the test split, once, and keeps some of its pictures for the report."""
        job, monitor, done = self.job, self.monitor, self.plan.steps
        split, name = (job.test, "test") if job.test is not None else (job.val, "val")
        confusion, samples = (self.config.folder / name for name in SAMPLES)
        last = samples if self.config.monitor.samples else confusion
        if split is None or self.ranks.any(monitor.found(done, name) is not None and last.exists()):
            return
        self._drop_samples()
        row, predictions = self._evaluated(split, name)
        if name == "test" and monitor.found(done, name) is None:
            monitor.write(self._row(done, name) | row)
        if self.ranks.first:
            about = (predictions, split.labels, split.classes)
            keep_confusion(confusion, done, name, *about)
            rows = spread(len(split), self.config.monitor.samples)
            keep_samples(samples, job.loader(split), rows, {"predictions": predictions[rows]})
            monitor.end(done)

    def _drop_samples(self) -> None:
        """Those of other pictures or of the run before: no row is yet there that they are taken to be of."""
        if self.ranks.first:
            for name in SAMPLES:
                (self.config.folder / name).unlink(missing_ok=True)

    def _advance(self, done: int, batches: Iterator[Batch], meter: Meter, bad: NonFinite) -> None:
        """Step number ``done``, and its row."""
        config, ranks, plan = self.config, self.ranks, self.plan
        ranks.at("pictures", done)
        found = meter.next(batches, config.train.accumulate)
        lr = learning_rate(config.optim, done - 1, plan.steps, plan.steps_per_epoch, config.train.batch)
        seed_step(config.seed, done - 1, ranks)
        stepped = self._step(done, found, lr)
        bad.note(done, stepped, found)
        if bad.too_many:
            self._save(done - bad.run)
            self._written()
            meter.tell(done - bad.run)
            raise bad.complaint(done)
        ranks.at("agreeing")
        if plan.logs(done):
            row = self._training_row(done, stepped) | meter.row(done) | {"skipped": bad.take()}
            self.monitor.write(row | {"lr": lr, "samples": done * config.train.batch})
            self.monitor.bar.advance(0, _told(row))

    def _batches(self, start: int) -> Iterator[Batch]:
        config, ranks, plan = self.config, self.ranks, self.plan
        order = Order(len(self.job.train), config.train.batch, config.seed)
        accumulate = config.train.accumulate
        rows = training_rows(order, ranks.rank, ranks.world, accumulate, start, plan.steps, plan.side)
        return self.job.loader(self.job.train).training(rows, plan.micro_batch, config.seed)

    def _step(self, done: int, batches: list[Batch], lr: float) -> Stepped:
        """One step, and a look at its gradients where the plan says so."""
        engine, flow = self.engine, self.flow
        if not self.plan.looks(done):
            return engine.step(batches, lr)
        flow.begin(engine.weights(), engine.loss_scale)
        stepped = engine.step(batches, lr, flow.look)
        self.ranks.at("gradient flow")
        self.monitor.write(self._row(done, "gradients") | flow.end(engine.weights(), self.ranks.sum))
        return stepped

    def _boundary(self, done: int, meter: Meter) -> None:
        """Between two steps: evaluates and saves where the plan says so, and stops where it was asked to."""
        plan, ranks = self.plan, self.ranks
        top1 = None
        if plan.evaluates(done) or plan.saves(done):
            meter.tell(done)
        try:
            if plan.evaluates(done):
                top1 = self._watch_validation(done)
        except Preempted:
            self._save(done)
            self._written()
            raise
        asked = ranks.any(STOP.asked)
        if asked:
            meter.tell(done)
        if asked or top1 is not None or plan.saves(done):
            self._save(done, top1)
        self.monitor.bar.advance()
        if asked and done < plan.steps:
            self._written()
            why = f"step {done} of {plan.steps} ({STOP.why or 'another rank was asked'})"
            raise Preempted(f"stopped at {why}; the same command goes on from there")

    def _watch_validation(self, done: int) -> float | None:
        """Evaluates on the validation split; see ``_best``."""
        row, _ = self._evaluated(self.job.val, "val")
        if done == self.plan.steps and self.job.test is None:
            self._drop_samples()
        self.monitor.write(self._row(done, "val") | row)
        return self._best(row)

    def _best(self, row: dict) -> float | None:
        """A validation's top-1, where it is the best so far, and that counts; else none."""
        reached = max(row["top1"], row.get("ema_top1", 0.0))
        self.writer.wait()  # the first rank's knows whether the best before was kept
        better = self.ranks.any(self.ranks.first and reached > self.writer.best)
        return reached if better and self.config.checkpoint.best else None

    def _evaluated(self, split: Split, name: str) -> tuple[dict, np.ndarray]:
        """What a row says of the split, raw weights and their average, and the raw weights' predictions."""
        title = {"val": "validate", "test": "test"}[name]
        seen = self.job.evaluate(self.engine.network(), split, title)
        row = {"loss": seen.loss, "top1": seen.top1, "faults": len(seen.faults)}
        if self.engine.ema is not None:
            average = self.job.evaluate(self.engine.network(ema=True), split, f"{title} EMA")
            row |= {"ema_loss": average.loss, "ema_top1": average.top1}
        return row, seen.predictions

    def _training_row(self, done: int, stepped: Stepped) -> dict:
        """The step's own loss and top-1 over the whole global batch, not a running mean."""
        sums = torch.stack([stepped.loss.double(), stepped.correct.double()]).cpu()
        loss, correct = self.ranks.sum(sums).tolist()
        return self._row(done, "train") | {
            "loss": loss / self.ranks.world if math.isfinite(loss) else None,
            "top1": correct / self.config.train.batch,
        }

    def _row(self, done: int, split: str) -> dict:
        return {"step": done, "epoch": self.plan.epoch(done), "split": split}

    def _save(self, done: int, top1: float | None = None) -> None:
        """The first rank writes, while training goes on.

        :param top1: given when this is the best so far.
        """
        self.ranks.at("saving")
        state = self.engine.state()
        if self.ranks.first:
            about = {
                "config": self.config.model_dump(),
                "classes": self.job.train.classes,
                "pictures": self.job.train.fingerprint,
                "wandb_id": self.monitor.wandb_id,
                "best_of": self.best_of,
            }
            self.writer.save(done, state | about, top1)

    def _written(self) -> None:
        """:raises UserError: on all ranks, when the newest checkpoint could not be written."""
        self.writer.wait()
        if self.ranks.any(self.writer.failure is not None):
            failure = self.writer.failure or UserError("the first rank could not save a checkpoint")
            raise UserError(f"{failure}; free some space and run the same command again")


def _told(row: dict) -> str:
    return f"loss {told_loss(row)}, {row['images_per_s']:.0f} pictures/s"


def seed_step(seed: int, step: int, ranks: Ranks) -> None:
    """Dropout's masks are a function of (seed, step, rank): a continued run draws the same ones."""
    drawn = int(np.random.SeedSequence([seed, step, ranks.rank]).generate_state(1)[0])
    if ranks.device.type == "cpu":
        torch.default_generator.manual_seed(drawn)  # the next one takes 0.3 ms where there is no GPU
    else:
        torch.manual_seed(drawn)
