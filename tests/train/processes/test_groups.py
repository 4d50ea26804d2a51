"""Which divisions of a batch keep the samples together that an objective compares."""

from pathlib import Path

import pytest

from facemae.errors import ConfigError, UsageError
from facemae.train.processes.groups import check_groups
from facemae.train.processes.world import check_share
from facemae.train.trainer import pretrain
from tests.train.conftest import Tiny

TWO_VIEWS = ("views.main.copies=2", "views.main.mask=null")


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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("objectives.0.group=4", "efficiency.micro_batch=2"), "micro-batches of 2 in 4 turns tear them apart"),
        (("objectives.0.group=4", "efficiency.micro_batch=2", "efficiency.processes=2"), "with 2 processes"),
        (("objectives.0.group=3",), "compares groups of 3 samples and optim.batch_size is 8"),
        (("efficiency.micro_batch=3",), "efficiency.micro_batch 3 does not divide"),
        (
            ("data.streams=[{name: a, shards: nowhere, share: 2}, {name: b, shards: nowhere}]",),
            "a batch of 8 cannot be cut into 2 lanes and shares 2:1",
        ),
        (("efficiency.processes=3",), "3 processes cannot share 2 lanes"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    tiny: Tiny, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    contrast = "objectives=[{kind: contrastive_image, pool: mean}]"
    recipe = tiny(contrast, *TWO_VIEWS, *overrides)
    with pytest.raises((ConfigError, UsageError)) as caught:
        pretrain(recipe, tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_objectives_of_a_kind_are_numbered_where_their_groups_are_named(tiny: Tiny) -> None:
    two = "objectives=[{kind: contrastive_image, pool: mean}, {kind: contrastive_image, pool: mean, group: 4}]"
    with pytest.raises(ConfigError, match="objective 'contrastive_image_0' compares groups of 8 samples, and micro"):
        check_share(tiny(two, *TWO_VIEWS, "efficiency.micro_batch=4"), 1)
