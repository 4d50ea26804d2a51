"""What all tests share: the tiers' time budgets, and one small shard set of procedural faces."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BUDGET_SECONDS = {"slow": 30 * 60, "default": 10 * 60}


def _tier(config: pytest.Config) -> str:
    expression = str(config.getoption("-m") or "")
    return "slow" if "slow" in expression and "not slow" not in expression else "default"


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Say when a tier outgrew its budget, so that the suite stays one that people run.

    Said and not failed: the clock of a machine that others use as well proves nothing of the code.
    """
    start = time.monotonic()
    result = yield
    tier, elapsed = _tier(session.config), time.monotonic() - start
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if elapsed > BUDGET_SECONDS[tier] and reporter is not None:
        budget = f"the {tier} tier took {elapsed:.0f} s; its budget is {BUDGET_SECONDS[tier]} s"
        reporter.write_line(f"{budget}: --durations=30 names the slowest tests", red=True)
    return result


@pytest.fixture(autouse=True, scope="session")
def _one_thread_each() -> None:
    """Tiny tensors are faster on one thread, and two cores are shared by many test processes."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files that several tests share and none may change."""
    return tmp_path_factory.mktemp("shared")
