"""Processes find each other, exchange rows and flags, and say who failed first; so does the harness."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from facemae.errors import ProcessError
from facemae.train.processes import process_group
from facemae.train.processes.process_group import OneProcess, Place, ProcessGroup, find_place
from tests.spawn import RankError, run_in_processes


def exchange(group: ProcessGroup, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.full((2, 3), group.rank + 1, dtype=dtype, requires_grad=True)
    gathered = group.gather(rows)
    weights = torch.arange(1, 1 + len(gathered), dtype=dtype).unsqueeze(1) * (group.rank + 1)
    (gathered * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    return gathered.detach(), rows.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_gathered_rows_are_in_rank_order_and_gradients_return_summed(world: int, dtype: torch.dtype) -> None:
    results = run_in_processes(exchange, world, dtype)
    rows = torch.arange(1, world + 1, dtype=dtype).repeat_interleave(2).unsqueeze(1).expand(-1, 3)
    everybody = sum(range(1, world + 1))
    for rank, (gathered, gradient) in enumerate(results):
        assert torch.equal(gathered, rows)
        assert gradient.dtype == dtype
        assert gradient[:, 0].tolist() == [(2 * rank + 1) * everybody, (2 * rank + 2) * everybody]


def add_small_gradients(group: ProcessGroup) -> float:
    rows = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
    share = 1.0 if group.rank == 0 else 2.0**-8
    (group.gather(rows).sum() * share).backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    return rows.grad.item()


def test_gradients_are_summed_in_full_precision() -> None:
    # 1 and three times half of bf16's last digit: added one by one in bf16, each is lost or rounds up.
    assert set(run_in_processes(add_small_gradients, 4)) == {1 + 2.0**-7 * 2}


def talk(group: ProcessGroup) -> tuple[object, ...]:
    given = torch.tensor([1, group.rank])
    total = group.all_reduce_sum(given)
    assert given.tolist() == [1, group.rank]
    group.barrier()
    flags = (group.agree(flag=False), group.agree(flag=group.rank == group.world - 1))
    return total.tolist(), flags, group.broadcast_object({"from": group.rank}), group.gather_objects(group.rank)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_sums_flags_and_objects_are_the_same_everywhere(world: int) -> None:
    expected = ([world, sum(range(world))], (False, True), {"from": 0}, list(range(world)))
    assert run_in_processes(talk, world) == [expected] * world


def test_one_process_says_the_same_to_itself() -> None:
    alone = OneProcess()
    given = torch.ones(2, requires_grad=True)
    assert alone.gather(given) is given
    assert alone.all_reduce_sum(given.detach()).tolist() == [1, 1]
    assert (alone.agree(flag=True), alone.agree(flag=False)) == (True, False)
    assert alone.broadcast_object("a") == "a"
    assert alone.gather_objects("a") == ["a"]
    alone.barrier()


ENVIRONMENT = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


def test_the_place_comes_from_the_environment() -> None:
    assert find_place({}) is None
    assert find_place({"MASTER_ADDR": "node0", "LOCAL_RANK": "0"}) is None
    assert find_place(ENVIRONMENT) == Place(1, 4, 1, "env://", one_machine=False)
    for near in ({"LOCAL_WORLD_SIZE": "4"}, {"MASTER_ADDR": "127.0.0.1"}):
        place = find_place({**ENVIRONMENT, **near})
        assert place is not None
        assert place.one_machine


def test_half_an_environment_is_refused() -> None:
    for name in ENVIRONMENT:
        with pytest.raises(ProcessError, match=f"only in part: {name} not set") as caught:
            find_place({**ENVIRONMENT, name: ""})
        assert "torchrun" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"RANK": "4"}, "0 <= RANK < WORLD_SIZE"), ({"RANK": "-1"}, "0 <= RANK"), ({"LOCAL_RANK": "x"}, "whole numbers")],
)
def test_an_environment_without_sense_is_refused(change: dict[str, str], expected: str) -> None:
    with pytest.raises(ProcessError, match="the environment says RANK=") as caught:
        find_place({**ENVIRONMENT, **change})
    assert expected in str(caught.value)


def test_who_does_not_find_the_others_says_where_it_looked(tmp_path: Path) -> None:
    place = Place(0, 2, 0, f"file://{tmp_path}/meeting", one_machine=True)
    group = ProcessGroup(place, timeout=timedelta(seconds=1))
    with pytest.raises(ProcessError, match="process 0 of 2 did not reach the others at file:") as caught, group:
        pass
    assert "within 1 s" in str(caught.value)
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_a_machine_with_too_few_gpus_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    group = ProcessGroup(Place(2, 3, 2, f"file://{tmp_path}/meeting", one_machine=True), "cuda")
    with pytest.raises(ProcessError, match="number 2 of its machine, which shows 2 GPUs"), group:
        pass


def taken_gpus(group: ProcessGroup, only: bool) -> str:
    taken: list[torch.device] = []
    identity = "the same" if only else f"GPU {group.rank}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "set_device", taken.append)
        patch.setattr(process_group, "_gpu_identity", lambda _: identity)
        group._take_gpu()
        try:
            group._check_own_gpu()
        except ProcessError as error:
            return error.found
    assert taken == [torch.device("cuda", 0)]
    return "own"


def test_the_only_gpu_a_process_is_shown_is_its_own() -> None:
    assert run_in_processes(taken_gpus, 2, False) == ["own", "own"]
    assert run_in_processes(taken_gpus, 2, True) == ["own", "process 1 has the same GPU as process 0"]


def enter_twice(group: ProcessGroup) -> str:
    with pytest.raises(ProcessError) as caught, ProcessGroup(group.place):
        pass
    # What was entered first still works.
    assert group.agree(flag=True)
    return str(caught.value)


def test_a_second_group_in_a_process_is_refused() -> None:
    assert "in use in this process already" in run_in_processes(enter_twice, 1)[0]


def fail_on(group: ProcessGroup, failing: int) -> None:
    if group.rank == failing:
        time.sleep(0.2)
        raise ValueError("the real reason")
    group.barrier()


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    with pytest.raises(
        RankError, match=r"^rank 1 of 2 failed:\n(?s:.*)ValueError: the real reason(?s:.*)rank 0 of 2 failed"
    ):
        run_in_processes(fail_on, 2, 1)


def die(group: ProcessGroup) -> None:
    if group.rank == 1:
        os._exit(3)
    group.barrier()


def test_a_lost_process_is_named_as_what_it_is() -> None:
    with pytest.raises(RankError, match=r"^rank 1 of 2 died with exit code 3\nrank 0 of 2 failed:\n") as caught:
        run_in_processes(die, 2)
    assert "ProcessError: process 0 of 2 lost the others: " in str(caught.value)
    assert "look at what the other processes said" in str(caught.value)


def fail_and_close_badly(group: ProcessGroup) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("what is broken cannot be closed")

    setattr(group, "_close", broken)  # noqa: B010 (a method)
    raise ValueError("the cause")


def test_an_error_is_not_hidden_by_one_of_closing() -> None:
    with pytest.raises(RankError, match="ValueError: the cause") as caught:
        run_in_processes(fail_and_close_badly, 1)
    assert "cannot be closed" not in str(caught.value)


def hang(group: ProcessGroup) -> None:
    if group.rank == 1:
        time.sleep(1000)
    group.barrier()


def test_a_rank_that_hangs_is_ended_and_shows_where() -> None:
    with pytest.raises(RankError, match=r"rank 1 of 2 hung until the time was over, here:\n(?s:.*) in hang"):
        run_in_processes(hang, 2, timeout=5.0)
    assert run_in_processes(talk, 1)
