import pytest
import torch

from facemae.config import DecoderConfig
from facemae.errors import UsageError
from facemae.models.attention import choose_attention, prepare_attention
from facemae.models.decoder import CrossAttention, PixelDecoder, build_decoder
from facemae.models.encoding import Encoding
from facemae.models.init import initialise
from facemae.models.patches import hidden_patches, patchify, take, unpatchify


def decoder(kind: str) -> PixelDecoder:
    config = DecoderConfig.model_validate({"kind": kind, "width": 32, "depth": 2, "heads": 4})
    built = build_decoder(config, encoder_width=24, grid=(4, 4), patch_values=9)
    initialise(built, 0)
    return built.eval()


def encoding(prefix: int = 1) -> Encoding:
    generator = torch.Generator().manual_seed(0)
    visible = torch.tensor([[0, 3, 7, 8], [1, 2, 5, 15]])
    return Encoding(torch.randn(2, prefix + 4, 24, generator=generator), prefix, visible)


@pytest.mark.parametrize("kind", ["joint", "cross"])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_all_hidden_patches_are_predicted_in_ascending_order(kind: str, prefix: int) -> None:
    model, given = decoder(kind), encoding(prefix)
    with torch.no_grad():
        every = model(given)
        hidden = hidden_patches(torch.tensor([[0, 3, 7, 8], [1, 2, 5, 15]]), 16)
        assert every.shape == (2, 12, 9)
        swapped = model(given, hidden.flip(1)).flip(1)
    torch.testing.assert_close(swapped, every, atol=1e-6, rtol=1e-5)


def test_cross_queries_do_not_see_each_other() -> None:
    model, given = decoder("cross"), encoding()
    ranks = torch.tensor([[0, 4, 5], [2, 3, 11]])
    assert given.visible is not None
    subset = hidden_patches(given.visible, 16).gather(1, ranks)
    with torch.no_grad():
        torch.testing.assert_close(model(given, subset), take(model(given), ranks), atol=1e-6, rtol=1e-5)


def test_joint_patches_do_see_each_other() -> None:
    model, given = decoder("joint"), encoding()
    ranks = torch.tensor([[0, 4, 5], [2, 3, 11]])
    assert given.visible is not None
    subset = hidden_patches(given.visible, 16).gather(1, ranks)
    with torch.no_grad():
        assert (model(given, subset) - take(model(given), ranks)).abs().max() > 1e-4


def test_an_encoding_without_a_mask_is_refused() -> None:
    full = Encoding(torch.zeros(1, 17, 24), 1)
    with pytest.raises(UsageError, match="all patches"):
        decoder("cross")(full)


@pytest.mark.parametrize("kind", ["joint", "cross"])
def test_plain_and_fused_attention_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = decoder(kind), encoding()
    with torch.no_grad():
        fused = model(given)
        monkeypatch.setattr("facemae.models.attention.choose_attention", lambda *_: False)
        plain = model(given)
    flags = [layer.fused_attn for layer in model.modules() if hasattr(layer, "fused_attn")]
    assert flags == [False, False]
    torch.testing.assert_close(plain, fused, atol=1e-6, rtol=1e-5)


def test_attention_is_chosen_by_the_type_computed_in() -> None:
    cpu = torch.device("cpu")
    assert choose_attention(cpu, torch.float32, 17)
    assert not choose_attention(cpu, torch.bfloat16, 17)
    assert choose_attention(cpu, torch.bfloat16, 5000)
    assert choose_attention(torch.device("cuda"), torch.bfloat16, 17)
    layer = CrossAttention(8, 2, context_width=8)
    with torch.autocast("cpu", torch.bfloat16):
        prepare_attention(layer, torch.zeros(1, 17, 8))
    assert not layer.fused_attn
    prepare_attention(layer, torch.zeros(1, 17, 8))
    assert layer.fused_attn


def test_patches_are_ordered_by_row_then_pixel_then_channel() -> None:
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    for row, column, y, x, channel in ((0, 0, 0, 0, 0), (1, 2, 1, 0, 2), (0, 1, 0, 1, 1)):
        found = patches[1, 3 * row + column, (2 * y + x) * 3 + channel]
        assert found == images[1, channel, 2 * row + y, 2 * column + x]
    assert torch.equal(unpatchify(patches, 2, (2, 3)), images)


def test_take_and_hidden_patches() -> None:
    visible = torch.tensor([[0, 2], [1, 4]])
    assert hidden_patches(visible, 5).tolist() == [[1, 3, 4], [0, 2, 3]]
    tokens = torch.arange(20).view(2, 5, 2)
    assert take(tokens, visible).tolist() == [[[0, 1], [4, 5]], [[12, 13], [18, 19]]]
