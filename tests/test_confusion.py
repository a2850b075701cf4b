"""The classes missed most often: as counted, as drawn in the report, and where a file is broken."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_run import CLASSES, make_run
from scipy import stats

from pipeline.config import UserError
from pipeline.figures.style import PNG_LIMIT
from pipeline.monitor.confusion import OTHERS, WORST, keep_confusion, worst_classes
from pipeline.report import load, write


@given(st.integers(2, 15), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_worst_classes_are_those_of_the_confusion_matrix(k, n, seed):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, k, n), rng.integers(-1, k, n)
    matrix = np.zeros((k, k), int)
    np.add.at(matrix, (labels[predictions >= 0], predictions[predictions >= 0]), 1)
    recall = {str(c): matrix[c, c] / matrix[c].sum() for c in range(k) if matrix[c].sum() > matrix[c, c]}
    worst = worst_classes(predictions, labels, [str(c) for c in range(k)])
    assert [each["recall"] for each in worst] == sorted(recall.values())[:WORST]
    for each in worst:
        row = matrix[int(each["class"])].copy()
        assert each["recall"] == recall[each["class"]]
        assert (each["pictures"], each["right"]) == (row.sum(), row[int(each["class"])])
        interval = stats.binomtest(each["right"], each["pictures"]).proportion_ci(method="wilson")
        assert (each["low"], each["high"]) == pytest.approx((interval.low, interval.high), abs=1e-6)
        row[int(each["class"])] = 0
        said = [other["pictures"] for other in each["taken_for"]]
        assert said == sorted(row[row > 0], reverse=True)[:OTHERS]
        assert said == [row[int(other["class"])] for other in each["taken_for"]]


def drawn(folder):
    """A run's report with a confusion of four classes with awkward names."""
    labels = np.arange(80) % 4
    said = np.where(np.random.default_rng(0).random(80) < 0.7, labels, (labels + 1) % 4)
    keep_confusion(folder / "confusion.json", 100, "test", said, labels, CLASSES)
    return write(folder).read_text()


def test_the_report_shows_them(tmp_path):
    folder = make_run(tmp_path / "run", transfer=False)
    assert "missed most often" not in write(folder).read_text()
    page = drawn(folder)
    assert page.count("<h3>Classes that are missed most often</h3>") == 1
    assert "](plots/worst.png)" in (folder / "report.md").read_text()
    with Image.open(folder / "plots" / "worst.png") as picture:
        assert picture.width > 1000
    assert (folder / "plots" / "worst.png").stat().st_size < PNG_LIMIT


def test_a_run_without_a_miss_has_no_such_plot(tmp_path):
    folder = make_run(tmp_path / "run", transfer=False)
    keep_confusion(folder / "confusion.json", 1, "test", np.arange(4), np.arange(4), CLASSES)
    assert json.loads((folder / "confusion.json").read_text())["worst"] == []
    assert "missed most often" not in write(folder).read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"worst": [{"class": "a"}]}', '{"worst": [1]}'])
def test_a_broken_file_is_named(tmp_path, text):
    folder = make_run(tmp_path / "run", training=False, transfer=False)
    (folder / "confusion.json").write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(folder / 'confusion.json'))}: "):
        load(folder)
