"""Which code made a run: in a repository, outside of one, without git, and over restarts."""

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.monitor import codebase as room
from pipeline.monitor.codebase import code_state, keep_code, without_secrets

VERSIONS = {"python", "torch", "dali"}


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=me", "-c", "user.email=me@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository with one committed file, in which the code seems to lie."""
    file = tmp_path / "code" / "code.py"
    file.parent.mkdir()
    file.write_text("one = 1\n")
    git(file.parent, "init", "--initial-branch", "trunk")
    git(file.parent, "add", ".")
    git(file.parent, "commit", "-m", "one")
    monkeypatch.setattr(room, "__file__", str(file))
    return file.parent


def test_a_repository_is_told(repository):
    commit = git(repository, "rev-parse", "HEAD")
    found = code_state()
    versions = {key: found.pop(key) for key in VERSIONS}
    assert all(versions.values())
    assert found == {"commit": commit, "branch": "trunk", "dirty": False, "remote": None}
    git(repository, "checkout", "--detach")
    git(repository, "remote", "add", "origin", "https://me:secret@example.org/code")
    (repository / "note.txt").write_text("git does not track this")
    found = code_state()
    assert (found["branch"], found["dirty"], found["remote"]) == (None, False, "https://example.org/code")
    (repository / "code.py").write_text("one = 2\n")
    assert code_state()["dirty"] is True


def test_what_an_interrupted_install_left_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "torch-9.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert code_state()["dali"]


def test_variables_of_git_do_not_mislead_it(repository, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert code_state()["branch"] == "trunk"


def test_without_git_or_repository_only_versions_are_told(repository, monkeypatch, tmp_path):
    (repository / "new.py").write_text("")
    monkeypatch.setattr(room, "__file__", str(repository / "new.py"))  # git does not track it
    assert code_state().keys() == VERSIONS
    (tmp_path / "alone.py").write_text("")
    monkeypatch.setattr(room, "__file__", str(tmp_path / "alone.py"))
    assert code_state().keys() == VERSIONS
    monkeypatch.setattr(room, "__file__", str(repository / "code.py"))
    assert "commit" in code_state()
    monkeypatch.setenv("PATH", "")
    assert code_state().keys() == VERSIONS


def test_a_git_that_hangs_is_not_waited_for(repository, monkeypatch, tmp_path):
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(room, "PATIENCE", 0.2)
    assert code_state().keys() == VERSIONS


word = st.text("ab:@?#/.%", max_size=8)


@given(st.sampled_from(["https", "http", "ssh", "git+ssh"]), word, word, word)
def test_no_part_of_an_address_that_may_be_secret_is_kept(scheme, user, password, query):
    for secret in (f"{user}SECRET", f"SECRET{user}:{password}", f"{user}:{password}SECRET"):
        kept = without_secrets(f"{scheme}://{secret}@example.org/code.git?{query}SECRET")
        assert "SECRET" not in kept
        assert kept in ("", f"{scheme}://example.org/code.git")


@pytest.mark.parametrize("place", ["example.org:8443/me/code.git", "host:me/code.git", "/srv/code.git"])
@pytest.mark.parametrize("scheme", ["https://", "ssh://", ""])
def test_the_place_is_kept(scheme, place):
    assert without_secrets(f"{scheme}{place}") == f"{scheme}{place}"
    assert without_secrets(f"{scheme}git@{place}") == f"{scheme}{place}"


def test_code_is_noted_for_the_steps_it_made(tmp_path):
    file = tmp_path / "code.yaml"
    one, two = {"commit": "1", "dirty": False}, {"commit": "2", "dirty": True}
    keep_code(file, one, 0)
    keep_code(file, one, 40)  # continued with the same code
    assert yaml.safe_load(file.read_text()) == [{"after_step": 0, **one}]
    keep_code(file, two, 60)
    assert yaml.safe_load(file.read_text()) == [{"after_step": 0, **one}, {"after_step": 60, **two}]
    keep_code(file, one, 50)  # an older checkpoint: steps after it are done again
    assert yaml.safe_load(file.read_text()) == [{"after_step": 0, **one}]
    keep_code(file, two, 0)
    assert yaml.safe_load(file.read_text()) == [{"after_step": 0, **two}]
    file.write_text("{")
    keep_code(file, one, 70)
    assert yaml.safe_load(file.read_text()) == [{"after_step": 70, **one}]
