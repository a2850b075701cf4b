"""What test_engines.py does on real ranks: ``torchrun ... engine_rounds.py ROUND CONFIG FOLDER [DEVICE]``.

A round leaves in FOLDER what the first rank saw; the tests compare.
"""

import itertools
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config import TrainConfig, load
from pipeline.data.batches import Batch, training_rows
from pipeline.data.index import open_index
from pipeline.data.order import Order
from pipeline.models import build
from pipeline.train import Job
from pipeline.train.engine import Engine, build_engine
from pipeline.train.ranks import Ranks, join

ENGINES = ("ddp", "zero0", "zero1", "zero2", "zero3")
MUCH = {"train__accumulate": 2, "train__ema": 0.9, "optim__clip": 0.5}
MUCH |= {"optim__backbone_lr_scale": 0.3, "model__checkpoint": "not read here"}
SAME = {"sgd": MUCH, "adamw": MUCH, "lars": MUCH, "sgd alone": {}}
"""What ``same`` changes in the config; the first word is the optimizer."""
RATES = {"sgd": 0.05, "adamw": 0.001, "lars": 5.0}
STEPS = 4


class Stand:
    """A job's config, ranks and pictures, for as many engines as a round likes."""

    def __init__(self, config: TrainConfig, ranks: Ranks, folder: Path):
        self.config, self.ranks, self.folder = config, ranks, folder
        self.index = open_index(config.data.index)

    def changed(self, engine: str, **changes) -> TrainConfig:
        tree = self.config.model_dump()
        stage = {} if engine == "ddp" else {"engine": "deepspeed", "deepspeed__stage": int(engine[-1])}
        for key, value in (stage | changes).items():
            place, *rest = key.split("__")
            if rest:
                tree[place][rest[0]] = value
            else:
                tree[place] = value
        return TrainConfig.model_validate(tree)

    def engine(self, config: TrainConfig, state: dict | None = None, step: int = 0) -> Engine:
        """As the loop makes it; with ``state``, one that goes on."""
        torch.manual_seed(0)
        memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = smooth(build(config.model.name, 5)).to(self.ranks.device, memory_format=memory)
        engine = build_engine(model, config, self.ranks)
        if state is not None:
            engine.restore(state, step)
        engine.prime((self.micro_batch(config), 3, 32, 32))
        return engine

    def micro_batch(self, config: TrainConfig) -> int:
        return config.train.batch // self.ranks.world // config.train.accumulate

    def batches(self, config: TrainConfig, steps: int) -> list[list[Batch]]:
        """The micro-batches of this rank, by step."""
        split, accumulate = self.index.split("train"), config.train.accumulate
        order = Order(len(split), config.train.batch, 1)
        rows = training_rows(order, self.ranks.rank, self.ranks.world, accumulate, 0, steps)
        loader = Job(config, self.ranks, split).loader(split)
        flat = iter(list(loader.training(rows, self.micro_batch(config), 1)))
        return [[next(flat) for _ in range(accumulate)] for _ in range(steps)]

    def keep(self, name: str, seen: dict) -> None:
        if self.ranks.first:
            torch.save(seen, self.folder / f"{name}.pt")

    def read(self, name: str) -> dict:
        return torch.load(self.folder / f"{name}.pt", weights_only=True)

    def mean(self, value: Tensor) -> float:
        return float(self.ranks.sum(value.detach().clone())) / self.ranks.world


def smooth(model: nn.Module) -> nn.Module:
    """Without kinks. Engines add gradients up in different orders, and where a ReLU's input comes to lie on
    the other side of zero, the last bit becomes the third decimal of a gradient."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
    return model


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def digest(tensors) -> str:
    return sha256(b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


# --- rounds -----------------------------------------------------------------------------------------------


def same(stand: Stand) -> None:
    """The same steps by every engine, and everything that can be asked of it."""
    for setting, changes in SAME.items():
        name = setting.split()[0]
        for engine in ENGINES:
            config = stand.changed(engine, optim__name=name, **changes)
            stand.keep(f"{setting} {engine}", course(stand, config))


def course(stand: Stand, config: TrainConfig) -> dict:
    ranks, engine = stand.ranks, stand.engine(config)
    own: dict[str, Tensor] = {}
    for name, parameter in engine.model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: own.update({name: gradient.detach().clone()}))
    losses, gradients = [], []
    for found in stand.batches(config, STEPS):
        look = lambda whole: gradients.append(copied(whole))  # noqa: E731
        stepped = engine.step(found, RATES[config.optim.name], look)
        losses.append(stand.mean(stepped.loss))
    seen = {"losses": losses, "gradients": gradients}
    if config.train.accumulate == 1:
        seen["hooks"] = {name: ranks.sum(each.contiguous()) / ranks.world for name, each in own.items()}
    seen["statistics"] = ranks.gather(digest(engine.model.buffers()))
    val = stand.index.split("val")
    for ema in [False] + [True] * (config.train.ema is not None):
        network = engine.network(ema=ema)
        seen[f"networks {ema}"] = ranks.gather(digest(network.state_dict().values()))
        seen[f"val {ema}"] = Job(config, ranks, val).evaluate(network, val, "val").loss
    return seen | {"state": engine.state()}


def product(stand: Stand) -> None:
    """The same steps in all settings: two, of which the second goes by what the first one left behind."""
    for name, accumulate, clip, ema in itertools.product(RATES, (1, 2), (None, 0.5), (None, 0.9)):
        changes = {"train__accumulate": accumulate, "optim__clip": clip, "train__ema": ema}
        for engine in ENGINES:
            config = stand.changed(engine, optim__name=name, **changes)
            running = stand.engine(config)
            stepped = [running.step(found, RATES[name]) for found in stand.batches(config, 2)]
            losses = [stand.mean(each.loss) for each in stepped]
            state = running.state()
            kept = {"losses": losses, "model": state.get("model"), "ema": state.get("ema")}
            stand.keep(f"{name} {accumulate} {clip} {ema} {engine}", kept)


def poison(stand: Stand) -> None:
    """A NaN picture on the last rank in the third step, and a run in which there was no third step."""
    for engine in ENGINES:
        config = stand.changed(engine, optim__name="adamw", **MUCH)
        batches = stand.batches(config, 4)
        bad = batches[2]
        if stand.ranks.rank == stand.ranks.world - 1:
            bad = [bad[0], replace(bad[1], images=bad[1].images * torch.nan)]
        poisoned, spared = stand.engine(config), stand.engine(config)
        applied = [poisoned.step(each, 0.001).applied for each in (*batches[:2], bad, batches[3])]
        for each in (*batches[:2], batches[3]):
            spared.step(each, 0.001)
        seen = {"applied": stand.ranks.gather(applied)}
        stand.keep(f"poison {engine}", seen | {"poisoned": poisoned.state(), "spared": spared.state()})


def begin(stand: Stand) -> None:
    """Undisturbed runs, with a checkpoint on the way."""
    for engine in ENGINES:
        config = stand.changed(engine, optim__name="adamw", **MUCH)
        running = stand.engine(config)
        for done, found in enumerate(stand.batches(config, STEPS), start=1):
            running.step(found, 0.001)
            if done == STEPS // 2:
                stand.keep(f"half {engine}", running.state())
        stand.keep(f"whole {engine}", running.state())


def go_on(stand: Stand) -> None:
    """The second half, from the checkpoint; a second first pass leaves no trace either."""
    for engine in ENGINES:
        config = stand.changed(engine, optim__name="adamw", **MUCH)
        running = stand.engine(config, stand.read(f"half {engine}"), STEPS // 2)
        running.prime((stand.micro_batch(config), 3, 32, 32))
        for found in stand.batches(config, STEPS)[STEPS // 2 :]:
            running.step(found, 0.001)
        stand.keep(f"continued {engine}", running.state())


def carry(stand: Stand) -> None:
    """Every engine reads every engine's checkpoint, and writes it again."""
    for reader in ENGINES:
        engine = stand.engine(stand.changed(reader, optim__name="adamw", **MUCH))
        for writer in ENGINES:
            engine.restore(stand.read(f"half {writer}"), STEPS // 2)
            stand.keep(f"{writer} by {reader}", engine.state())


def narrow(stand: Stand) -> None:
    """Mixed precision; in fp16 with a loss scale that overflows at first."""
    for precision in ("bf16", "fp16"):
        for engine in ENGINES:
            config = stand.changed(engine, train__precision=precision, **MUCH)
            running = stand.engine(config)
            state = running.state()
            if stand.ranks.first and precision == "fp16":
                state["optimizer"]["scaler"]["scale"] = 2.0**22
            stand.keep("started", state)
            stand.ranks.barrier()
            running.restore(stand.read("started"), 0)
            applied, scales, gradients = [], [], []
            for found in stand.batches(config, 8):
                look = lambda whole, into=gradients: into.append(copied(whole))  # noqa: E731
                applied.append(running.step(found, 0.02, look).applied)
                scales.append(running.loss_scale)
            seen = {"applied": applied, "scales": scales, "gradients": gradients}
            stand.keep(f"{precision} {engine}", seen | {"state": running.state()})


def compiled(stand: Stand) -> None:
    """The same steps, compiled, where that is possible, and not."""
    for engine in ENGINES[:-1]:
        for compile in (False, True):
            config = stand.changed(engine, train__compile=compile)
            running = stand.engine(config)
            for found in stand.batches(config, STEPS):
                running.step(found, RATES["sgd"])
            stand.keep(f"compiled {compile} {engine}", running.state())


ROUNDS = {each.__name__: each for each in (same, product, poison, begin, go_on, carry, narrow, compiled)}

if __name__ == "__main__":
    words, path, folder, *device = sys.argv[1:]
    # On a GPU convolutions are else rounded to TF32's ten bits, and added up in any order.
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    with join(*device or ["cpu"]) as ranks:
        stand = Stand(load(TrainConfig, path), ranks, Path(folder))
        for word in words.split(","):
            ROUNDS[word](stand)
