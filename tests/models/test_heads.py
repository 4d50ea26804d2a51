import pytest
import torch

from facemae.config import HeadConfig
from facemae.models.encoding import Encoding
from facemae.models.heads import LearnedNumber, ProjectionHead, summary
from facemae.models.init import initialise


@pytest.mark.parametrize(("depth", "norm", "parts"), [(1, "layer", 1), (2, "none", 3), (3, "layer", 7)])
def test_a_projection_has_length_one_and_looks_at_one_sample(depth: int, norm: str, parts: int) -> None:
    config = HeadConfig.model_validate({"depth": depth, "hidden": 16, "out": 8, "norm": norm})
    head = ProjectionHead(config, 12)
    initialise(head, 0)
    assert len(head.layers) == parts
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = head(x)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(head(x[3:4]), found[3:4])
        with torch.autocast("cpu", torch.bfloat16):
            rough = head(x)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.norm(dim=1), torch.ones(5))


def test_a_summary_is_the_class_token_or_the_mean_of_the_patches() -> None:
    tokens = torch.arange(24.0).view(2, 4, 3)
    encoding = Encoding(tokens, prefix=2)
    assert torch.equal(summary(encoding, "cls"), tokens[:, 0])
    assert torch.equal(summary(encoding, "mean"), (tokens[:, 2] + tokens[:, 3]) / 2)


def test_a_learned_number_starts_as_told() -> None:
    number = LearnedNumber(-10.0)
    initialise(number, 5)
    assert number().tolist() == [-10.0]
    assert number.value.requires_grad
