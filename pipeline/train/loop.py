"""The training loop: the only one. Transfer finetunes and starts over with it too."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.config import TrainConfig, UserError
from pipeline.data.batches import Batch, training_rows
from pipeline.data.index import Split
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.monitor import Monitor
from pipeline.monitor.samples import keep_samples, spread
from pipeline.train import checkpoint, resume
from pipeline.train.engine import DDPEngine, Stepped, precision_dtype
from pipeline.train.evaluate import Evaluation, evaluate
from pipeline.train.meter import Meter
from pipeline.train.optim import learning_rate
from pipeline.train.plan import Plan
from pipeline.train.preempt import STOP, Preempted
from pipeline.train.ranks import Ranks
from pipeline.train.start import build_model


@dataclass(frozen=True)
class Job:
    """What one run reads and where it runs."""

    config: TrainConfig
    ranks: Ranks
    train: Split
    val: Split | None = None
    """Watched while training."""
    test: Split | None = None
    """Evaluated once, after the last step."""
    evaluation_batch: int = 256
    """Pictures per forward pass of a rank, without gradients."""

    def loader(self, split: Split) -> Loader:
        data, train = self.config.data, self.config.train
        dtype = precision_dtype(train.precision, self.ranks.device)
        form = (self.ranks.device, train.channels_last, dtype)
        return Loader(split, data.pictures, data.loading, *form)

    def evaluate(self, model: nn.Module, split: Split, title: str) -> Evaluation:
        """Loss, top-1 and predictions on a split, in the run's precision."""
        batch = min(self.evaluation_batch, -(-len(split) // self.ranks.world))
        dtype = precision_dtype(self.config.train.precision, self.ranks.device)
        return evaluate(model, self.loader(split), batch, self.ranks, dtype, title)


def fit(job: Job) -> nn.Module:
    """Trains, or continues, to the last step; the trained model, the same on every rank.

    :raises Preempted: the job was asked to stop; everything is saved.
    :raises UserError: the config and the pictures, ranks or checkpoint do not go together.
    """
    config, ranks = job.config, job.ranks
    plan = Plan.of(config, len(job.train), ranks.world)
    state = resume.find(config, job.train.fingerprint)
    if config.train.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.train.deterministic
    engine = DDPEngine(build_model(config, job.train.classes, ranks), config, ranks)
    if state:
        engine.restore(state)
    start = state["step"] if state else 0
    if not ranks.equal(start):
        raise UserError(
            f"runs: this rank finds step {start} in {config.folder}, another rank another step; "
            "put runs on a file system that all nodes share"
        )
    monitor = Monitor(config, start, plan.steps, state and state["wandb_id"], first=ranks.first)
    try:
        if start < plan.steps:
            side = plan.side(start) or config.data.pictures.size
            engine.prime((plan.micro_batch, 3, side, side))
            _steps(job, plan, engine, monitor, start)
        engine.agree()
        _finish(job, plan, engine.model, monitor)
    finally:
        monitor.close()
    return engine.model


def _steps(job: Job, plan: Plan, engine: DDPEngine, monitor: Monitor, start: int) -> None:
    config, ranks = job.config, job.ranks
    batches = _training_batches(job, plan, start)
    meter = Meter(config, len(job.train), ranks, start)
    for step in range(start, plan.steps):
        lr = learning_rate(config.optim, step, plan.steps, plan.steps_per_epoch)
        torch.manual_seed(_step_seed(config.seed, step, ranks.rank))
        stepped = engine.step(meter.next(batches, config.train.accumulate), lr)
        done = step + 1
        if plan.logs(done):
            row = _training_row(job, plan, done, stepped) | meter.row(done)
            monitor.write(row | {"lr": lr, "samples": done * config.train.batch})
            monitor.bar.advance(0, f"loss {row['loss']:.3f}, {row['images_per_s']:.0f} pictures/s")
        if job.val is not None and plan.evaluates(done):
            engine.agree()
            seen = job.evaluate(engine.model, job.val, "validate")
            monitor.write(_evaluation_row(plan, done, "val", seen))
            meter.restart(done)
        asked = ranks.any(STOP.asked)
        if asked or plan.saves(done):
            _save(job, engine, monitor, done)
        monitor.bar.advance()
        if asked and done < plan.steps:
            raise Preempted(f"stopped at step {done} of {plan.steps}; the same command goes on from there")


def _training_batches(job: Job, plan: Plan, start: int) -> Iterator[Batch]:
    config, ranks = job.config, job.ranks
    order = Order(len(job.train), config.train.batch, config.seed)
    accumulate = config.train.accumulate
    rows = training_rows(order, ranks.rank, ranks.world, accumulate, start, plan.steps, plan.side)
    return job.loader(job.train).training(rows, plan.micro_batch, config.seed)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Dropout's masks are a function of (seed, step, rank): a continued run draws the same ones."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _training_row(job: Job, plan: Plan, done: int, stepped: Stepped) -> dict:
    """The step's own loss and top-1 over the whole global batch, not a running mean."""
    sums = torch.stack([stepped.loss.double(), stepped.correct.double()]).cpu()
    loss, correct = job.ranks.sum(sums).tolist()
    return {
        "step": done,
        "epoch": plan.epoch(done),
        "split": "train",
        "loss": loss / job.ranks.world,
        "top1": correct / job.config.train.batch,
    }


def _evaluation_row(plan: Plan, done: int, split: str, seen: Evaluation) -> dict:
    return {
        "step": done,
        "epoch": plan.epoch(done),
        "split": split,
        "loss": seen.loss,
        "top1": seen.top1,
        "faults": len(seen.faults),
    }


def _finish(job: Job, plan: Plan, model: nn.Module, monitor: Monitor) -> None:
    """Evaluates on the test split, once, and keeps some of its pictures for the report."""
    split, name = (job.test, "test") if job.test is not None else (job.val, "val")
    file = job.config.folder / "samples.npz"
    done = monitor.has(plan.steps, name) and file.exists()
    if split is None or job.ranks.any(done):
        return
    seen = job.evaluate(model, split, "test" if name == "test" else "validate")
    if name == "test" and not monitor.has(plan.steps, name):
        monitor.write(_evaluation_row(plan, plan.steps, name, seen))
    if job.ranks.first:
        rows = spread(len(split), job.config.monitor.samples)
        keep_samples(file, job.loader(split), rows, {"predictions": seen.predictions[rows]})


def _save(job: Job, engine: DDPEngine, monitor: Monitor, done: int) -> None:
    """The first rank writes; if it cannot, all ranks stop together."""
    failure: UserError | None = None
    if job.ranks.first:
        state = engine.state() | {
            "config": job.config.model_dump(),
            "classes": job.train.classes,
            "pictures": job.train.fingerprint,
            "wandb_id": monitor.wandb_id,
        }
        try:
            checkpoint.save(job.config.folder / "checkpoints", done, state, job.config.checkpoint.keep)
        except UserError as error:
            failure = error
    if job.ranks.any(failure is not None):
        raise failure or UserError("the first rank could not save a checkpoint")
