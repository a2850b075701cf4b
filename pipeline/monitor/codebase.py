"""Which code made which steps of a run, on what: code.yaml in its folder, and the same in W&B's config."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import yaml

from pipeline.files import write_whole

CODE = "code.yaml"
PATIENCE = 10.0
"""Seconds that git may take: a file system can hang, and a run does without."""


def code_state() -> dict[str, str | bool | None]:
    """The repository's commit, branch (none if detached), dirty (files that git tracks differ from the
    commit) and remote, and the versions of python, torch and dali.

    Where git is missing, or this file is in no repository, only the versions.
    """
    versions = {"python": platform.python_version(), "torch": metadata.version("torch"), "dali": _dali()}
    try:
        return _repository(Path(__file__).parent) | versions
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return versions


def _dali() -> str | None:
    """Its package has another name for each version of CUDA; what an interrupted install left has none."""
    named = [each for each in metadata.distributions() if (each.name or "").startswith("nvidia-dali-")]
    return named[0].version if named else None


def _repository(folder: Path) -> dict[str, str | bool | None]:
    _git(folder, "ls-files", "--error-unmatch", __file__)  # a repository around ours would tell nothing
    remote = _git(folder, "config", "--get", "remote.origin.url", missing_ok=True)
    return {
        "commit": _git(folder, "rev-parse", "HEAD"),
        "branch": _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD", missing_ok=True) or None,
        "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
        "remote": without_secrets(remote) or None,
    }


def _git(folder: Path, *words: str, missing_ok: bool = False) -> str:
    # Git's hooks and aliases point these at another repository.
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    environment = {key: value for key, value in os.environ.items() if key not in others}
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    options = {"capture_output": True, "text": True, "timeout": PATIENCE, "env": environment}
    return subprocess.run(command, check=not missing_ok, **options).stdout.strip()


def without_secrets(url: str) -> str:
    """A remote's address without the user, password and query that may carry a token.

    Nothing is left of one in which it is not plain where they end.
    """
    parts = re.fullmatch(r"([\w+.-]+://)?(?:[^/?#]*@)?([^?#@]*)(?:[?#][^@]*)?", url)
    return "".join(part or "" for part in parts.groups()) if parts else ""


def keep_code(file: Path, code: dict, step: int) -> None:
    """Notes in a YAML list that the steps after ``step`` are made by this code; written whole.

    A run continued with other code, or on other hardware, gets another entry; entries of steps that are done
    again go.
    """
    before = [entry for entry in read_code(file) if entry["after_step"] < step]
    same = before and {**before[-1], "after_step": 0} == {"after_step": 0, **code}
    entries = before if same else [*before, {"after_step": step, **code}]
    write_whole(file, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode())


def read_code(file: Path) -> list[dict]:
    """Its entries; none of a new run, or of a file that is not ours any more."""
    try:
        known = yaml.safe_load(file.read_text("utf-8"))
        return [entry for entry in known if entry["after_step"] >= 0]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return []
