"""Run folders as training and transfer write them, of drawn numbers."""

import json
from pathlib import Path

import numpy as np
import yaml

CLASSES = ["airplane", "<script>alert(1)</script>", "a|b *c*", r"$\frac$ [red]"]
ACCURACY = {"scratch": 0.55, "frozen": 0.71, "finetuned": 0.76}


def make_training(folder: Path, rng: np.random.Generator, *, side: int) -> None:
    rows, steps = [], 20
    for step in range(1, 5 * steps + 1):
        epoch = step / steps
        row = {"time": 1.76e9 + step, "step": step, "epoch": epoch}
        loss, top1 = 2 * np.exp(-epoch / 3) + rng.normal(0, 0.05), min(1, epoch / 6)
        fast = {"lr": 0.1, "images_per_s": 900 + rng.normal(), "samples": 64 * step}
        fast |= {"data_wait": 0.03, "faults": int(step % 50 == 7)}
        rows.append(row | {"split": "train", "loss": loss, "top1": top1} | fast)
        if step % steps == 0:
            rows.append(row | {"split": "val", "loss": loss + 0.1, "top1": 0.9 * top1})
    rows.append(row | {"split": "test", "loss": 0.5, "top1": 0.8125})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_bytes(text.encode() + b'{"time": 1760000000.0, "name": "\xc3')
    if not side:
        return
    labels = rng.integers(0, 4, 24)
    np.savez_compressed(
        folder / "samples.npz",
        pictures=rng.integers(0, 256, (24, side, side, 3), np.uint8),
        labels=labels,
        predictions=np.where(rng.random(24) < 0.8, labels, (labels + 1) % 4),
        classes=np.array(CLASSES),
    )


def make_transfer(folder: Path, rng: np.random.Generator, *, side: int) -> None:
    """Three seeds of three modes; with ``side`` 0 no sample pictures."""
    name, k, n_test, results = "vehicles", len(CLASSES), 4000, []
    for mode, accuracy in ACCURACY.items():
        for seed in range(3):
            share = np.full((k, k), (1 - accuracy) / (k - 1))
            np.fill_diagonal(share, accuracy)
            confusion = np.stack([rng.multinomial(n_test // k, row) for row in share])
            value = float(np.trace(confusion) / n_test)
            results.append({
                "dataset": name, "mode": mode, "metric": "top1", "value": value, "low": value - 0.0137,
                "high": value + 0.0141, "n_train": 80, "n_test": n_test, "seed": seed,
                "chosen": {"C": 0.31622776}, "checkpoint": "runs/a/checkpoints/step_00000100.pt",
                "confusion": confusion.tolist(),
            })  # fmt: skip
    means = {mode: np.mean([r["value"] for r in results if r["mode"] == mode]) for mode in ACCURACY}
    summary = {m: {"value": v, "low": v - 0.0211, "high": v + 0.0219, "seeds": 3} for m, v in means.items()}
    gains = {mode: means[mode] - means["scratch"] for mode in ("frozen", "finetuned")}
    transfer = {
        "dataset": name, "classes": CLASSES, "protocol": "20 pictures a class & <b>tested</b> on 4,000",
        "checkpoint": "runs/a/checkpoints/step_00000100.pt", "results": results, "summary": summary,
        "improvement": {m: {"value": v, "low": v - 0.0311, "high": v + 0.0307} for m, v in gains.items()},
    }  # fmt: skip
    (folder / "transfer").mkdir(exist_ok=True)
    (folder / "transfer" / f"{name}.json").write_text(json.dumps(transfer))
    if not side:
        return
    labels = rng.integers(0, k, 24)
    said = {
        f"predictions_{m}": np.where(rng.random(24) < a, labels, (labels + 1) % k)
        for m, a in ACCURACY.items()
    }
    pictures = rng.integers(0, 256, (24, side, side, 3), np.uint8)
    np.savez(folder / "transfer" / f"{name}.samples.npz", pictures=pictures, labels=labels, **said)


def make_run(folder: Path, *, training: bool = True, transfer: bool = True, side: int = 32) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    common = {"name": folder.name, "seed": 7}
    if training or not transfer:
        config = common | {"model": {"name": "resnet20"}, "train": {"epochs": 5.0, "batch": 64}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    if training:
        make_training(folder, rng, side=side)
    if transfer:
        make_transfer(folder, rng, side=side)
        config = common | {"checkpoint": "runs/a", "datasets": [{"name": "vehicles"}]}
        (folder / "transfer" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder
