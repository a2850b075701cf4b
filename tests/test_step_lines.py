"""Lines of what happened at a step: one each, whatever a file is called, and after every restart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.step_lines import StepLines

ODD = "a\nb\rc\vd\fe\x1cf\x1dg\x1eh\x85i\u2028j\u2029k\tl"
names = st.text(st.sampled_from(f"{ODD}ü\\ '"))


@given(names=st.lists(names, min_size=1, max_size=5))
def test_any_name_is_a_line_of_its_own_and_survives_restarts(names, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "names.tsv"
    file.unlink(missing_ok=True)
    for step, name in enumerate(names, 1):
        lines = StepLines(file, step, 0)
        assert lines.uncounted == list(range(1, step))
        lines.add(step, name, "is bad")
        lines.close()
    found = [line.split("\t") for line in file.read_bytes().decode().splitlines()]
    assert [(step, why) for step, _, why in found] == [(f"{n}", "is bad") for n, _ in enumerate(names, 1)]
    before = file.read_bytes()
    StepLines(file, len(names), 0).close()
    assert file.read_bytes() == before


def test_names_are_written_as_python_writes_them(tmp_path):
    lines = StepLines(tmp_path / "odd.tsv", 0, 0)
    lines.add(3, ODD, "ü \\ 'x'")
    lines.close()
    told = r"a\nb\rc\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\u2028j\u2029k\tl"
    assert (tmp_path / "odd.tsv").read_text() == f"3\t{told}\tü \\ 'x'\n"


@pytest.mark.parametrize(
    "harm", ["rest of a name\tis bad\n", "\0\0\0\0\n", "9\tof a step that will be done again\n", "4\tcut o"]
)
def test_what_is_no_line_of_a_step_that_is_kept_is_left_out(harm, tmp_path):
    """Of code that wrote names as they are, of a machine that died, of lost work."""
    file, whole = tmp_path / "faults.tsv", "2\ta\u2028b\tis bad\n4\tc\x85d\tis bad\n"
    file.write_bytes(f"{whole}{harm}".encode())
    lines = StepLines(file, 8, 2)
    assert file.read_bytes() == whole.encode()
    assert lines.uncounted == [4]
