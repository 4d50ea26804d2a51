"""The attention bench: both ways compute the same, and what does not is not timed."""

import json

import pytest
import torch
from typer.testing import CliRunner

from facemae.bench import attention as bench
from facemae.bench.commands import app
from facemae.errors import DataError
from facemae.models.plain_attention import plain_attention

SMALL = bench.AttentionBenchSettings((5,), heads=2, size=8, all_tokens=40, rounds=2, seconds=0.001)


def test_a_line_for_each_precision_and_length() -> None:
    arguments = "attention --tokens 3 --tokens 4 --heads 1 --size 8 --rounds 1 --json"
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["bench"].partition(", ")[2] for entry in found] == [
        f"{precision}, {tokens} tokens" for precision in ("bf16", "fp32") for tokens in (3, 4)
    ]
    for entry in found:
        assert entry["ratio"] == pytest.approx(entry["ours"] / entry["baseline"], rel=1e-3)
        assert {entry["settings"]["baseline"], entry["bench"].partition(",")[0].removeprefix("attention by ")} == {
            "fused kernel",
            "matrix products",
        }


def test_ours_is_what_the_rule_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(device: torch.device, dtype: torch.dtype, tokens: int) -> bool:
        asked.append((dtype, tokens))
        return dtype == torch.bfloat16

    monkeypatch.setattr(bench, "choose_attention", choose)
    names = [result.bench for result in bench.bench_attention(SMALL)]
    assert names == ["attention by fused kernel, bf16, 5 tokens", "attention by matrix products, fp32, 5 tokens"]
    assert asked == [(torch.bfloat16, 5), (torch.float32, 5)]


@pytest.mark.parametrize("part", ["values", "gradients"])
def test_ways_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def wrong(qkv: torch.Tensor) -> torch.Tensor:
        found = plain_attention(qkv)
        if part == "values":
            return found * 1.1
        steeper = plain_attention(qkv * 1.1)
        return found.detach() + steeper - steeper.detach()

    monkeypatch.setattr(bench, "plain_attention", wrong)
    with pytest.raises(DataError, match=rf"{part} of the two ways differ by 0\.\d+ of the largest"):
        next(bench.bench_attention(SMALL))
