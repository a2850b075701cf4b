"""A dataset at several numbers of training pictures: an entry of the config becomes the points of a curve."""

import numpy as np
import pytest
import yaml

from pipeline.config import Dataset, TransferConfig, UserError, dump, load, parse
from pipeline.config.protocol import SHIPPED
from pipeline.data.index import open_index
from pipeline.transfer.task import Task


def config(folder, *entries) -> TransferConfig:
    tree = yaml.safe_load((SHIPPED / "five.yaml").read_text()) | {"datasets": list(entries)}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return load(TransferConfig, folder / "config.yaml")


def test_a_list_of_numbers_becomes_the_points_of_a_curve(tmp_path):
    entry = {"index": "data/x", "validation": 0.2, "test_per_class": 9}
    found = config(tmp_path, entry | {"name": "x", "per_class": [5, 20, "all"]}, entry | {"name": "y"})
    told = [(each.name, each.curve, each.per_class) for each in found.datasets]
    assert told == [("x-5", "x", 5), ("x-20", "x", 20), ("x-all", "x", None), ("y", None, None)]
    assert {each.test_per_class for each in found.datasets} == {9}
    (tmp_path / "resolved.yaml").write_text(dump(found))
    assert load(TransferConfig, tmp_path / "resolved.yaml") == found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "x", "per_class": [5, 5]}, r"datasets\.1\.name: 'x-5' is another dataset's"),
        ({"name": "x", "per_class": ["few"]}, r"datasets\.0\.per_class: .* integer.*, not 'few'"),
        ({"per_class": [5, 20]}, r"datasets\.0\.name: missing"),
        ({"protocol": "cars", "per_class": [5, 20]}, r"per_class: \[5, 20\], but None in protocol cars"),
        (
            {"name": "x", "per_class": 30, "test": "rest", "test_per_class": 9},
            r"test_per_class: test: rest is all that was not drawn",
        ),
    ],
)
def test_mistakes_are_a_line(tmp_path, keys, message):
    with pytest.raises(UserError, match=message) as told:
        config(tmp_path, {"index": "data/x"} | ({} if "protocol" in keys else {"validation": 0.2}) | keys)
    assert "\n" not in str(told.value)


def test_part_of_the_test_is_the_same_pictures_for_all_seeds_and_points(other_index):
    about = {"name": "x", "index": str(other_index), "validation": 0.25, "test_per_class": 4, "seeds": 3}
    tasks = [Task.open(parse(Dataset, about | {"per_class": n}, "x"), 7, "datasets.0") for n in (4, None)]
    few, whole = tasks
    assert np.bincount(few.pool.labels).tolist() == [4, 4, 4]
    fingerprints = {task.test(number).fingerprint for task in tasks for number in range(3)}
    assert len(fingerprints) == 1
    assert few.about.endswith("12 test pictures, 4 a class of the split test")
    # A smaller number's pictures are among a greater one's, and another seed draws others.
    assert [len(task.draws[0].rows) for task in tasks] == [12, 60]
    assert len({tuple(each.rows) for each in few.draws}) == 3
    assert "all training pictures" in whole.about
    everything = open_index(other_index).split("test")
    assert few.pool.fingerprint != everything.fingerprint
    with pytest.raises(UserError, match=r"datasets\.0\.test_per_class: .*class 0 has 15 pictures"):
        Task.open(parse(Dataset, about | {"test_per_class": 16}, "x"), 7, "datasets.0")
