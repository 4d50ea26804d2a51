"""Which code runs: what a run and a result are told apart by when a change of code may have changed a number."""

import importlib.metadata
import shutil
import subprocess
from pathlib import Path


def revision() -> str:
    """The code's revision: of git, with `+` where files were changed since; else the installed version."""
    folder = Path(__file__).parent
    # An environment may lie inside another project's repository, whose revision would say nothing.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return f"version {importlib.metadata.version('facemae')}"
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else str(commit)


def _git(folder: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    done = subprocess.run([program, "-C", str(folder), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None
