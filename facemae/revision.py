"""Which code runs: what a run and a result are told apart by when a change of code may have changed a number."""

import functools
import hashlib
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


@functools.cache
def source_digest() -> str:
    """First digits of the SHA-256 of the package's own modules: equal where the same code runs, however installed."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _git(folder: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    done = subprocess.run([program, "-C", str(folder), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else None
