"""Where a run's numbers come from: the state of the working directory, and what is otherwise when a run goes on."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from fishlens.journal.records import installed_versions
from fishlens.own_code import CODE

# programs that a repository's own settings can name, and what would fetch from its remotes
_FOREIGN = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never")
_SECONDS = 5  # git may be on a slow file system; a run does not wait for it


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory's repository, and whether a file it tracks was changed since; None without one.

    As it was when the process first asked: code that was imported by then is of that commit.
    """
    return _state_of(os.getcwd())  # noqa: PTH109


@lru_cache(maxsize=16)
def _state_of(folder: str) -> dict[str, Any] | None:
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(
        folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all",
        settings=_without_filters(folder),
    )  # fmt: skip
    return {"commit": commit, "changed": None if changed is None else bool(changed)}


def _git(folder: str, *arguments: str, settings: Sequence[str] = ()) -> str | None:
    """What git says; None where it is not installed, refuses or takes too long. It writes nothing and runs no program
    that the repository names: it may be a stranger's (`_FOREIGN`)."""
    named = [word for one in (*_FOREIGN, *settings) for word in ("-c", one)]
    try:
        found = subprocess.run(
            ["git", *named, "-C", folder, *arguments],
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.decode("utf-8", "replace").strip() if found.returncode == 0 else None


def _without_filters(folder: str) -> list[str]:
    """Settings that empty the programs through which git reads changed files (`filter.<name>.clean`, `process`)."""
    names = _git(
        folder, "config", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"
    )
    return [f"{name}={'false' if name.endswith('.required') else ''}" for name in (names or "").splitlines()]


def otherwise(start: Mapping[str, Any], fingerprints: Mapping[str, str]) -> list[str]:
    """What is no longer as a run's start record says, one sentence each: its user's code, libraries, the commit.

    fingerprints: of the present code, by the names that the start record has for them.
    """
    recorded = start.get("fingerprints") or {}
    found = [
        f"{what.removeprefix(CODE)} is other code now than when the run began: numbers from here on are of another "
        "program"
        for what, told in recorded.items()
        if what.startswith(CODE) and what in fingerprints and fingerprints[what] != told
    ]
    versions, now = start.get("versions") or {}, installed_versions()
    found += [
        f"{name} was {version} when the run began, and is {now.get(name, 'not installed')}"
        for name, version in versions.items()
        if now.get(name) != version
    ]
    before, present = start.get("git") or {}, git_state() or {}
    if before.get("commit") and present.get("commit") and before["commit"] != present["commit"]:
        found.append(
            f"the working directory was at commit {before['commit'][:12]} when the run began, and is at "
            f"{present['commit'][:12]}"
        )
    return found
