"""The house rules a machine can check: which room may import which, no global randomness, no paths, light start."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("facemae/**/*.py"), *ROOT.glob("probes/**/*.py")])

FORBIDDEN_IMPORTS = {
    "facemae": ("facemae_probes", "facemae_launch"),
    "facemae/data": ("facemae.bench", "facemae.models", "facemae.objectives", "facemae.train", "facemae.features"),
    "facemae/faces": (
        *("facemae.bench", "facemae.data", "facemae.features", "facemae.models", "facemae.objectives"),
        *("facemae.sound", "facemae.train", "facemae.video"),
    ),
    "facemae/sound": (
        *("facemae.bench", "facemae.data", "facemae.faces", "facemae.features", "facemae.models", "facemae.objectives"),
        *("facemae.train", "facemae.video"),
    ),
    "facemae/video": (
        *("facemae.bench", "facemae.data", "facemae.faces", "facemae.features", "facemae.models", "facemae.objectives"),
        *("facemae.sound", "facemae.train"),
    ),
    "facemae/models": ("facemae.objectives", "facemae.train", "facemae.features"),
    "facemae/objectives": ("facemae.train", "facemae.features"),
    "facemae/features": ("facemae.bench", "facemae.train", "facemae.objectives"),
    "facemae/train": ("facemae.features",),
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("room", FORBIDDEN_IMPORTS)
def test_imports_point_one_way(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for name in _imports(path):
            wrong = [target for target in FORBIDDEN_IMPORTS[room] if name == target or name.startswith(target + ".")]
            assert not wrong, f"{path.relative_to(ROOT)} imports {name}: {room} may not know {wrong[0]}"


TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}


def _global_draws(source: str) -> Iterator[str]:
    """What in a module draws from the global state of Python, NumPy or torch."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in ("random", "numpy.random"))
        elif isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random"):
            yield from (f"{node.module}.{name.name}" for name in node.names if name.name not in ("Generator", "Philox"))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = any(keyword.arg == "generator" for keyword in node.keywords)
            if name.removeprefix("torch.") in TORCH_DRAWS and name.startswith("torch.") and not given:
                yield f"{name} without a generator"
    yield from re.findall(
        r"\b(?:np|numpy)\.random\.(?!Generator|Philox)\w+|\btorch\.manual_seed|\btorch\.seed\b", source
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_draws_from_global_randomness(path: Path) -> None:
    drawn = list(_global_draws(path.read_text()))
    assert not drawn, f"{drawn[0]} is global randomness; use facemae.rng"


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from random import shuffle",
        "from numpy.random import default_rng",
        "import numpy as np\nnp.random.rand(3)",
        "import torch\ntorch.randn(2, 3)",
        "import torch\ntorch.randperm(5, device='cpu')",
        "import torch\ntorch.manual_seed(0)",
    ],
)
def test_the_search_for_global_randomness_finds_it(source: str) -> None:
    assert list(_global_draws(source))
    assert not list(_global_draws("import torch\ntorch.randn(2, generator=g)\nfrom numpy.random import Generator"))


def test_files_and_functions_stay_readable() -> None:
    for path in SOURCES:
        lines = path.read_text().splitlines()
        assert len(lines) <= 450, f"{path.relative_to(ROOT)} has {len(lines)} lines; give part of it a room of its own"
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 90, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


def test_no_machine_path_or_registry_host_is_tracked() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    unwanted = re.compile(r"(?<![\w.])/(?:home|work|scratch|checkpoint)/\w+|files\.pythonhosted|pypi\.org/simple")
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in {".png", ".safetensors"} or path == Path(__file__) or not path.is_file():
            continue
        found = unwanted.search(path.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{name} holds {found.group() if found else ''}"


def test_the_lock_has_a_hash_for_every_package_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=[a-z0-9])", text.strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_help_loads_neither_torch_nor_timm() -> None:
    code = (
        "import sys, json\n"
        "from facemae.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = ('torch', 'timm', 'torchvision', 'sklearn', 'cv2', 'faiss', 'matplotlib', 'pyarrow')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
    for command in ("quickstart", "data", "pretrain", "probe", "extract", "status", "config", "bench", "env"):
        assert command in done.stdout


def test_every_command_has_help_with_an_example() -> None:
    code = (
        "import sys\n"
        "from facemae.cli import _entry_points\n"
        "from typer.main import get_command\n"
        "def walk(command, path):\n"
        "    children = getattr(command, 'commands', None)\n"
        "    if children:\n        [walk(child, path + [name]) for name, child in children.items()]\n"
        "    elif 'facemae ' not in (command.help or '') + (command.epilog or ''):\n        print(' '.join(path))\n"
        "for name, entry in _entry_points().items():\n    walk(get_command(entry.load()), [name])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [""], "these commands show no example: " + done.stdout


def test_an_error_is_one_readable_block_with_its_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from facemae.cli import main; main()", "config", "fmae_tini"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("facemae: unknown recipe 'fmae_tini'; did you mean 'fmae_tiny'?")
    assert "Traceback" not in done.stderr
