"""Which divisions of a batch keep the samples together that an objective compares."""

import pytest

from facemae.errors import ConfigError
from facemae.train.processes.groups import check_groups


@pytest.mark.parametrize(
    ("group", "share", "micro", "world"),
    [
        (1, 8, 1, 4),  # nothing is compared
        (4, 16, 8, 2),  # within a micro-batch
        (4, 16, 4, 2),
        (32, 8, 8, 4),  # over all processes, without accumulation
        (16, 8, 8, 4),  # over pairs of processes
        (12, 8, 8, 3),  # over process borders
    ],
)
def test_whole_groups_are_accepted(group: int, share: int, micro: int, world: int) -> None:
    check_groups({"contrast": group, "plain": 1}, share=share, micro=micro, world=world, lanes=24)


def test_torn_groups_are_refused_with_what_is_legal() -> None:
    with pytest.raises(
        ConfigError, match="'contrast' compares groups of 8 samples, and micro-batches of 4 in 4 turns"
    ) as caught:
        check_groups({"contrast": 8, "plain": 1}, share=16, micro=4, world=2, lanes=8)
    text = str(caught.value)
    assert "efficiency.micro_batch 8 or 16 with 2 processes" in text
    assert "or 8 processes with micro-batches of 4" in text
    assert "micro_batch=null" in text


def test_no_number_of_processes_is_named_that_the_lanes_refuse() -> None:
    with pytest.raises(ConfigError) as caught:
        check_groups({"contrast": 8}, share=16, micro=4, world=2, lanes=4)
    text = str(caught.value)
    assert "efficiency.micro_batch 8 or 16 with 2 processes" in text
    assert "processes with micro-batches" not in text


def test_the_whole_batch_as_a_group_forbids_accumulation() -> None:
    with pytest.raises(ConfigError) as caught:
        check_groups({"contrast": 32}, share=8, micro=4, world=4, lanes=8)
    assert "micro_batch 8 with 4 processes, or 8 processes" in str(caught.value)


def test_all_torn_objectives_are_named_and_every_suggestion_suits_all() -> None:
    with pytest.raises(ConfigError) as caught:
        check_groups({"contrast": 4, "clusters": 16, "plain": 2}, share=24, micro=6, world=2, lanes=8)
    text = str(caught.value)
    assert "'contrast' compares groups of 4 samples and objective 'clusters' compares groups of 16" in text
    assert "micro_batch 24 with 2 processes, or 8 processes with micro-batches of 6" in text
    check_groups({"contrast": 4, "clusters": 16, "plain": 2}, share=24, micro=24, world=2, lanes=8)
    check_groups({"contrast": 4, "clusters": 16, "plain": 2}, share=6, micro=6, world=8, lanes=8)


def test_a_group_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="'contrast' compares groups of 5 samples, which do not divide the batch of 32"
    ):
        check_groups({"contrast": 5}, share=8, micro=8, world=4, lanes=8)
