"""The GPU's benchmark on a CPU, small: what is counted, told, kept and left out. No test judges a time."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import drawn_pictures
from hypothesis import given
from hypothesis import strategies as st
from odd_pictures import encoded, photograph

from launch import bench
from pipeline.bench.gpu import (
    cifar,
    goals,
    kernels,
    kinds,
    loading,
    plot,
    probe,
    roofline,
    run,
    steps,
    table,
    tests,
)
from pipeline.bench.gpu.cases import missing, worked
from pipeline.bench.gpu.ceilings import copied, multiplied, profiled
from pipeline.bench.gpu.plan import LEAST, SECONDS, TINY, Plan
from pipeline.bench.gpu.rows import every
from pipeline.bench.gpu.throughput import summary
from pipeline.bench.gpu.traffic import CONVOLUTION, ELEMENTWISE, NORM, OPTIMIZER, PER_PARAMETER, POOL, traffic
from pipeline.bench.gpu.whole import figures
from pipeline.bench.kept import Kept
from pipeline.data.index import open_index
from pipeline.data.prepare import write_index
from pipeline.data.sources import Source
from pipeline.models import build
from pipeline.train.ranks import join

RATE = {"median": 2.0, "low": 1.0, "high": 3.0}


@pytest.fixture
def plan(tmp_path) -> Plan:
    return Plan("cpu", tmp_path / "work", 1, TINY)


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


# --- cases ------------------------------------------------------------------------------------------------


def test_a_case_that_fails_or_takes_its_process_with_it_costs_no_other(plan):
    wanted = [{"name": does + "1", "does": does} for does in ("there", "fails", "ends", "well")]
    wanted.append({"name": "late", "does": "well", "least": 1e6})
    seen = list(worked(plan, "tests.gpu_cases:measured", wanted, {"there1": {"rate": 5}}, time.time() + 200))
    found = seen[-1]
    assert found["there1"] == {"rate": 5}, "what is known is not measured again"
    assert found["fails1"]["failed"] == "ValueError: no such kernel"
    assert found["ends1"]["failed"] == "its process ended without a word"
    assert found["well1"]["rate"] == "well1"
    assert found["late"]["left"] == "no time: needs 1000000 s"
    assert [missing(found[case["name"]]) for case in wanted] == [False, True, True, False, True]
    assert len(seen[0]) == 2, "each is told as soon as it is known"


def test_what_is_not_there_fails_once_for_all(plan):
    wanted = [{"name": name} for name in "ab"]
    (found,) = worked(plan, "pipeline.no_such:asked", wanted, {}, time.time() + 100)
    assert {one["failed"] for one in found.values()} == {"pipeline.no_such is not installed"}


# --- sections and their time ------------------------------------------------------------------------------


class Section:
    """Notes how long it was given."""

    def __init__(self, tells: list[dict], error: Exception | None = None):
        self.tells, self.error, self.given, self.before = tells, error, None, None

    def run(self, plan, before, until):
        self.given, self.before = until - time.time(), before
        yield from self.tells
        if self.error:
            raise self.error


def kept_of(folder: Path, plan: Plan) -> Kept:
    machine = {
        "processor": "P",
        "cores": 1,
        "cores_of_machine": 2,
        "memory_gib": 1.0,
        "load": 0.0,
        "date": "d",
    }
    return Kept(
        folder / "gpu.json", machine | {"versions": {"torch": "1"}, "gpu": "G", "command": "c"}, plan.told()
    )


def test_a_section_that_fails_keeps_what_it_had_and_the_others_go_on(plan, tmp_path):
    sections = {
        "tests": Section([{"counts": {"passed": 1}}], RuntimeError("out of memory")),
        "probe": Section([{"cases": {}, "complete": True}]),
    }
    kept = kept_of(tmp_path, plan)
    assert run.run(plan, ("tests", "probe"), 500.0, kept, sections) == ["tests"]
    assert sections["tests"].given == pytest.approx(SECONDS["tests"], abs=2)
    again = kept_of(tmp_path, plan)
    assert again.results["tests"] == {"counts": {"passed": 1}, "failed": "RuntimeError: out of memory"}
    assert again.results["probe"]["complete"]
    # The second call goes on where the first one was, and leaves what is complete alone.
    sections = {"tests": Section([{"complete": True}]), "probe": Section([])}
    assert run.run(plan, ("tests", "probe"), 500.0, again, sections) == []
    assert sections["tests"].before == {"counts": {"passed": 1}}
    assert sections["probe"].given is None
    assert run.run(replace(plan, again=True), ("probe",), 500.0, again, sections) == []
    assert sections["probe"].given is not None


@given(st.floats(30, 2000), st.lists(st.sampled_from(list(SECONDS)), min_size=1, unique=True))
def test_time_is_given_in_order_and_never_more_than_there_is(seconds, names):
    plan, sections = Plan("cpu", Path("unused"), 1, TINY), {name: Section([]) for name in SECONDS}
    kept = type(
        "Kept", (), {"results": {}, "keep": lambda self, name, found: self.results.update({name: found})}
    )()
    names = tuple(name for name in SECONDS if name in names)
    run.run(plan, names, seconds, kept, sections)
    for name in names:
        given = sections[name].given
        if given is None:
            assert kept.results[name]["left"].startswith(f"no time: needs {LEAST[name]} s")
            assert seconds < LEAST[name]
        else:
            assert LEAST[name] - 2 <= given <= min(SECONDS[name], seconds) + 1


def test_all_of_it_takes_less_than_a_quarter_of_an_hour():
    assert sum(SECONDS.values()) <= 14 * 60
    assert SECONDS.keys() == LEAST.keys() == run.SECTIONS.keys()


# --- counting ---------------------------------------------------------------------------------------------


def test_traffic_by_hand():
    """Plain-8's shapes: 16 channels at 8², 32 at 4², 64 at 2²; seven convolutions and a head of 10."""
    batch, found = 3, traffic("plain8", 8, 3, 10)
    stem, one, two, three = 16 * 64, 16 * 64, 32 * 16, 64 * 4
    outs = [stem, one, one, two, two, three, three]
    ins = [3 * 64, stem, one, one, two, two, three]
    weights = [16 * 27, 16 * 144, 16 * 144, 32 * 144, 32 * 288, 64 * 288, 64 * 576]
    passes = [2] + [3] * 6
    moved = sum(p * (batch * (i + o) + w) for p, i, o, w in zip(passes, ins, outs, weights, strict=True))
    moved += 3 * (batch * (64 + 10) + 640)
    assert found[CONVOLUTION].bytes == found[CONVOLUTION].fused == 2 * moved
    assert found[NORM].bytes == 2 * 8 * batch * sum(outs)
    assert (found[ELEMENTWISE].bytes, found[ELEMENTWISE].fused) == (2 * 5 * batch * sum(outs), 0)
    assert found[POOL].bytes == 2 * 2 * batch * (three + 64)
    numbers = sum(parameter.numel() for parameter in build("plain8", 10).parameters())
    assert found[OPTIMIZER].bytes == PER_PARAMETER * numbers
    places = [64, 64, 64, 16, 16, 4, 4]
    macs = sum(p * w * place for p, w, place in zip(passes, weights, places, strict=True)) + 3 * 640
    assert found[CONVOLUTION].flops == 2 * batch * macs


def test_shortcuts_add_their_own():
    plain, residual = (traffic(name, 8, 1, 10)[ELEMENTWISE] for name in ("plain8", "resnet8"))
    blocks = [(16 * 64, 16 * 64), (16 * 64, 32 * 16), (32 * 16, 64 * 4)]
    assert residual.bytes - plain.bytes == 2 * sum(3 * i + 3 * o for i, o in blocks)
    assert residual.fused == 2 * sum(i + o for i, o in blocks)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128", CONVOLUTION),
        ("cudnn_infer_ampere_scudnn_dgrad", CONVOLUTION),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", CONVOLUTION),
        ("void cudnn::bn_fw_tr_1C11_kernel_NHWC<float, 512>", NORM),
        ("void at::native::batch_norm_collect_statistics_channels_last_kernel", NORM),
        ("triton_red_fused__native_batch_norm_legit_functional_relu_3", NORM),
        ("triton_poi_fused_add_relu_threshold_backward_7", ELEMENTWISE),
        ("void at::native::vectorized_elementwise_kernel<4, threshold>", ELEMENTWISE),
        ("void at::native::multi_tensor_apply_kernel<FusedSgdMathFunctor>", OPTIMIZER),
        ("triton_poi_fused__to_copy_12", OPTIMIZER),
        ("void cudnn::ops::nchwToNhwcKernel<float>", kernels.COPIES),
        ("Memcpy DtoD (Device -> Device)", kernels.COPIES),
        ("max_pool_forward_nhwc", POOL),
        ("aten::native_batch_norm", NORM),
        ("something_new", kernels.REST),
    ],
)
def test_kernels_are_known_by_name(name, kind):
    assert kernels.kind(name) == kind


def test_a_trace_is_cut_into_classes_and_gaps():
    def event(name, begin, long, cat="kernel", tid=7):
        return {"ph": "X", "cat": cat, "name": name, "ts": begin, "dur": long, "tid": tid}

    trace = [event("fprop", 0, 1000), event("wgrad", 500, 1000, tid=8), event("batch_norm", 2500, 500)]
    trace += [event("aten::conv2d", 0, 9000, "cpu_op"), event("aten::relu", 10, 20, "cpu_op")]
    found = kernels.table({"traceEvents": [*trace, {"ph": "M", "name": "process_name"}]}, 2, gpu=True)
    assert found["step_ms"] == 1.5
    assert found["classes"] == {CONVOLUTION: 1.0, kernels.IDLE: 0.5, NORM: 0.25}
    assert found["top"][0] == ["fprop", 0.5]
    found = kernels.table({"traceEvents": trace}, 1, gpu=False)["classes"]
    assert found == pytest.approx({CONVOLUTION: 8.98, kernels.IDLE: 0.0, ELEMENTWISE: 0.02})
    with pytest.raises(RuntimeError, match="saw nothing run"):
        kernels.table({"traceEvents": []}, 1, gpu=True)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=12))
def test_what_overlaps_is_counted_once(pairs):
    spans = [(begin, begin + long) for begin, long in pairs]
    assert kernels.covered(spans) == len({tick for begin, end in spans for tick in range(begin, end)})


# --- what is measured, in this process --------------------------------------------------------------------


@pytest.mark.slow
def test_every_kind_of_step_is_measured_and_profiled(plan, monkeypatch):
    """torch.compile hands everything through."""
    monkeypatch.setattr(torch, "compile", lambda model, mode=None: model)
    wanted = {case["name"]: case for case in kinds.of_model(plan) + kinds.of_others(plan)}
    assert len(wanted) == len(kinds.of_model(plan)) + len(kinds.of_others(plan)), "no name twice"
    chosen = ("bare, 2", "ours, compiled", "bare, compiled: default", "plain8: torchvision")
    with join("cpu") as ranks:
        for name in chosen:
            found = steps.rate_of(wanted[name] | {"seconds": 0.001}, ranks)
            assert len(found["rates"]) == TINY.repeats
            assert 0 < found["rate"]["low"] <= found["rate"]["high"]
        about = kinds.case(plan, "ours", "ours", "resnet8", 2) | {"steps": 2}
        seen = profiled(about, ranks)
        assert {CONVOLUTION, NORM, kernels.IDLE} <= seen["classes"].keys()
        assert sum(seen["classes"].values()) == pytest.approx(seen["step_ms"], rel=0.5)
        assert copied({"bytes": 1024}, ranks)["bytes_per_s"] > 0
        assert multiplied({"side": 8}, ranks)["flop_per_s"] > 0


@pytest.mark.slow
def test_graph_modes_are_marked_step_by_step(plan, monkeypatch):
    marked = []
    monkeypatch.setattr(torch, "compile", lambda model, mode=None: model)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marked.append(1))
    with join("cpu") as ranks:
        case = kinds.case(plan, "graphs", "bare", "resnet8", 2, "reduce-overhead")
        steps.made(case, ranks)()
    assert marked == [1]


def test_batches_of_both_indexes_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(8):
        file = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(photograph(rng, 60, 50)))
    out = {name: str(tmp_path / name) for name in ("files", "packed")}
    assert loading.write(0.0, str(tmp_path / "pictures"), out, 1000) == {"pictures": 8}
    for how, index in out.items():
        case = {"index": index, "how": how, "hardware": 0.65, "threads": 1, "batch": 4, "size": 32}
        case |= {"seconds": 0.01, "repeats": 2, "half": False}
        found = loading.rate_of(case, torch.device("cpu"))
        assert len(found["rates"]) == 2
        assert found["rate"]["low"] > 0
        assert len(open_index(index).classes) == 1000


def test_the_probes_path_is_measured_and_ends_when_its_time_is_up():
    case = {"train": 60, "val": 20, "width": 8, "classes": 3, "lambdas": 4, "until": time.time() + 100}
    found = probe.path(case, "cpu")
    assert found["done"] == len(found["told"]) == 4
    assert found["best"]["top1"] == max(one["top1"] for one in found["told"]) > 0.4
    assert probe.path(case | {"until": 0.0}, "cpu")["done"] == 1
    features, labels = probe.made(60, 8, 3, 1)
    again, _ = probe.made(60, 8, 3, 1)
    other, _ = probe.made(60, 8, 3, 2)
    assert (features == again).all()
    assert (features >= 0).all()
    assert not (features == other).all()
    assert set(labels) == {0, 1, 2}


# --- tests within the benchmark ---------------------------------------------------------------------------

SOME = """
import pytest
pytestmark = pytest.mark.gpu
def test_good(record_property):
    record_property("off", 0.25)
def test_bad():
    assert 1 == 2, "not the same"
@pytest.mark.skip(reason="no GPU here")
def test_skipped(): pass
"""


def test_outcomes_are_kept_by_name(plan, tmp_path):
    file = tmp_path / "test_some.py"
    file.write_text(SOME)
    *_, found = tests.run(replace(plan, tests=(file,)), {}, time.time() + 200)
    told = {one["name"].partition("::")[2]: one for one in found["outcomes"]}
    assert found["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert not found["complete"]
    assert told["test_good"]["seen"] == {"off": 0.25}
    assert told["test_bad"]["why"].startswith("AssertionError: not the same")
    assert "no GPU here" in told["test_skipped"]["why"]


def test_the_gpu_tests_are_those_of_this_repository():
    names = {file.name for file in Plan("cpu", Path(), 1).tests}
    assert names >= {"test_gpu_loader.py", "test_gpu_train.py", "test_gpu_engines.py", "test_gpu_transfer.py"}


# --- CIFAR-10's runs --------------------------------------------------------------------------------------


def rows_at(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "sp')
    return folder


def test_a_run_is_told_as_far_as_it_is(tmp_path):
    assert cifar.about(tmp_path / "none", None) == {"state": "waiting"}
    train = [
        {
            "split": "train",
            "step": step,
            "epoch": step / 4,
            "top1": 0.5,
            "images_per_s": 100.0,
            "samples": 100 * step,
        }
        for step in (1, 2, 3)
    ]
    watched = [{"split": "val", "step": 1, "top1": 0.5}, {"split": "val", "step": 2, "top1": 0.95}]
    folder = rows_at(tmp_path / "run", [*train, *watched])
    found = cifar.about(folder, None)
    assert (found["state"], found["step"], found["images_per_s"]) == ("stopped", 3, 100.0)
    assert (found["watched"], found["to_accuracy"]) == (0.95, 2.0)
    assert not cifar.finished(folder)
    rows_at(folder, [*train, {"split": "test", "step": 3, "top1": 0.9}])
    found = cifar.about(folder, None)
    assert cifar.finished(folder)
    assert (found["state"], found["error"]) == ("finished", pytest.approx(10))
    assert cifar.reached(train, watched[:1]) is None


def test_without_an_index_the_section_is_left_out(plan):
    (found,) = cifar.run(plan, {}, time.time() + 100)
    assert "--cifar INDEX" in found["left"]


@pytest.mark.slow
def test_runs_go_on_in_the_next_call(tmp_path, monkeypatch):
    """Two recipes, real jobs of four steps: finished, and left alone by the second call."""
    names = [f"class {number}" for number in range(10)]
    write_index(
        Source("drawn", names, {"train": drawn_pictures(140, 10, 0), "test": drawn_pictures(20, 10, 1)}),
        tmp_path / "index",
    )
    monkeypatch.setattr(cifar, "SAVING", 1.0)
    plan = Plan("cpu", tmp_path / "work", 1, TINY, cifar=tmp_path / "index", together=2)
    *_, found = cifar.run(plan, {}, time.time() + 250)
    assert {name: one["state"] for name, one in found["recipes"].items()} == dict.fromkeys(
        TINY.recipes, "finished"
    )
    assert found["complete"]
    assert "watched" in found["recipes"]["resnet20_fast"]
    folder = tmp_path / "work" / "gpu" / "cifar"
    before = every(folder / "plain20")
    *_, again = cifar.run(plan, found, time.time() + 20)
    assert again["recipes"] == found["recipes"]
    assert every(folder / "plain20") == before


# --- what is written --------------------------------------------------------------------------------------


def results(plan: Plan) -> dict:
    """Of all sections, as they may be; of a loader's and a step's case one without figures each."""
    step = {"rate": RATE, "step_s": 0.1, "first_s": 3.0, "peak_gb": 1.5}
    case = {"rate": RATE, "cores_busy": 2.0, "first_s": 1.0, "hardware": 0.65, "threads": 4, "how": "files"}
    machine = {"processor": "P", "cores_of_machine": 2, "memory_gib": 1.0, "load": 0.0, "date": "d"}
    machine |= {"versions": {"torch": "1"}, "gpu": "a GPU", "command": "c"}
    rows = [
        {
            "images_per_s": rate,
            **dict.fromkeys(("data_wait", "forward", "backward", "communication", "optimizer"), 0.2),
        }
        for rate in (9, 9, 1, 3)
    ]
    profile = {"classes": {NORM: 5.0, kernels.IDLE: 1.0}, "step_ms": 6.0, "top": []}
    found = {
        "tests": {
            "counts": {"passed": 1},
            "outcomes": [
                {"name": "t.py::test", "outcome": "passed", "seconds": 1.0, "why": None, "seen": {"off": 0.1}}
            ],
        },
        "throughput": {
            "contest": {"ours": RATE, "torchvision": RATE, "faster": RATE, "compiled": True},
            "steps": {"cases": {"bare, 4": step, "tuned": {"left": "no time: needs 200 s"}}},
            "loader": {
                "cases": {"files, 4 threads": case, "packed": {"failed": "no decoder"}},
                "pictures": 24,
            },
            "whole": figures(rows) | {"case": "files, 4 threads"},
        },
        "roofline": {
            "work": {NORM: {"bytes": 2e9, "fused": 1e9, "flops": 1e12}},
            "cases": {
                "copy": {"bytes_per_s": 1e12},
                "matrix": {"flop_per_s": 1e15},
                "ours": profile,
                "ours, compiled": {"left": "no time: needs 9 s"},
            },
        },
        "models": {"cases": {"plain8: ours": step}},
        "cifar": {
            "recipes": {
                "resnet20": {"state": "finished", "step": 4, "epoch": 1.0, "images_per_s": 5.0, "error": 9.5},
                "resnet20_fast": {"state": "stopped", "watched": 0.5, "to_accuracy": None},
                "plain20": {"state": "failed", "why": "no such index"},
            },
            "alone": 3.0,
            "together": 5.0,
            "chosen": "together",
        },
        "probe": {"left": "no time: needs 30 s, 2 are left"},
    }
    measured = {name: {"date": "d", "load": 0.0} for name in found}
    return found | {"machine": machine, "setting": plan.told(), "measured": measured}


def test_figures_are_held_against_goals(plan):
    told = results(plan)
    found = summary(told["throughput"])
    assert found == {"synthetic": 2.0, "faster": 2.0, "loader": 2.0, "whole": 2.0, "share": 1.0}
    assert summary({}) == {}
    assert roofline.bounds(told["roofline"]) == {NORM: {"alone": 2.0, "fused": 1.0}}
    text = table.markdown(told)
    for words in (
        "Device: a GPU.",
        "3,500 on one H200",
        "| × torchvision's step | 2.00 | 1.25 |",
        "| resnet20 | finished | 4 | 1.0 | 5 | 9.50 | 8.75 |",
        "- packed: no decoder.",
        "- tuned: no time: needs 200 s.",
        "- left: no time: needs 30 s, 2 are left.",
        "94 % not reached",
        "ours: most of it batch norm; nothing ran in 16.7% of the time.",
        "several at once from there on",
    ):
        assert words in text, words
    assert text.count("\n## ") == len(SECONDS)
    assert plot.draw(told).startswith(b"\x89PNG")


def test_what_was_not_asked_for_is_told(plan):
    told = results(plan)
    only = {key: told[key] for key in ("machine", "setting", "measured", "probe")}
    assert table.markdown(only).count("Not asked for.") == len(SECONDS) - 1
    assert plot.draw(only) is None
    assert goals.PAPER.keys() <= set(Plan("cuda", Path(), 1).sizes.recipes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--device cuda: torch sees no GPU on this machine"),
        (["--device", "cpu", "--only", "test"], "--only test: no such section; there are tests, throughput,"),
        (
            ["--device", "cpu", "--cifar", "nowhere"],
            "--cifar nowhere: no index there; python -m launch.prepare",
        ),
        (["--device", "cpu", "--pictures", "nowhere"], "--pictures nowhere: no such folder"),
        (["--device", "cpu", "--seconds", "5"], "--seconds 5: no section is done in less than 30"),
        (["--device", "cpu", "--seconds", "0"], "--seconds 0.0: must be greater than 0"),
    ],
)
def test_mistakes_cost_a_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        bench.main(["gpu", *words])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert message in told


@pytest.mark.slow
def test_the_command_writes_figures_table_and_picture(tmp_path, monkeypatch):
    """The section with the fewest processes; a second call has nothing left to do."""
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    words = ["gpu", "--device", "cpu", "--tiny", "--threads", "1", "--only", "roofline", "--seconds", "250"]
    words += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    monkeypatch.setitem(SECONDS, "roofline", 240)
    bench.main(words)
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert found["roofline"]["complete"], found["roofline"]
    assert "TB/s" in (tmp_path / "out" / "gpu.md").read_text()
    assert (tmp_path / "out" / "gpu.png").stat().st_size > 1000
    bench.main(words)
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["roofline"] == found["roofline"]
