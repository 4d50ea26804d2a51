import pytest
import torch
from pydantic import ValidationError
from torch import nn

from facemae.config import DecoderConfig
from facemae.errors import UsageError
from facemae.models.attention import SelfBlock, choose_attention, prepare_attention
from facemae.models.cross import CrossAttention, CrossSelfBlock
from facemae.models.decoder import CrossDecoder, JointDecoder, PixelDecoder, build_decoder
from facemae.models.encoding import Encoding
from facemae.models.init import initialise
from facemae.models.patches import hidden_patches, patchify, take, unpatchify


def decoder(kind: str, mix_layers: tuple[int, ...] | None = None) -> PixelDecoder:
    config = DecoderConfig.model_validate({"kind": kind, "width": 32, "depth": 2, "heads": 4, "mix_layers": mix_layers})
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


def test_each_block_reads_its_own_mix_of_layers() -> None:
    model, given = decoder("cross", mix_layers=(0, 2, 3)), encoding()
    assert isinstance(model, CrossDecoder)
    assert model.mix is not None
    generator = torch.Generator().manual_seed(1)
    layers = {number: torch.randn(2, 5, 24, generator=generator) for number in (0, 2)}
    given = Encoding(given.tokens, given.prefix, given.visible, layers)
    assert given.visible is not None
    weights, norms = model.mix.weights.weight, model.mix.norms
    assert weights.shape == (2, 3)
    with torch.no_grad():
        norms[1].get_parameter("weight").mul_(3)
        x = model.mask_token + model.positions[hidden_patches(given.visible, 16)]
        for number, block in enumerate(model.blocks):
            mixed = torch.zeros(2, 5, 24)
            for place, output in enumerate((layers[0], layers[2], given.tokens)):
                mixed = mixed + float(weights[number, place]) * output
            mean, variance = mixed.mean(-1, keepdim=True), mixed.var(-1, keepdim=True, unbiased=False)
            mixed = (mixed - mean) / (variance + 1e-6).sqrt() * (3 if number == 1 else 1)
            x = block(x, mixed)
        torch.testing.assert_close(model(given), model.pred(model.norm(x)), atol=1e-5, rtol=1e-5)


def test_without_a_mix_a_decoder_is_what_it_was() -> None:
    plain, mixed = decoder("cross"), decoder("cross", mix_layers=(1, 3))
    added = set(mixed.state_dict()) - set(plain.state_dict())
    assert added == {"mix.weights.weight"} | {f"mix.norms.{n}.{part}" for n in (0, 1) for part in ("weight", "bias")}
    assert not any("mix" in name for name in plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(mixed.state_dict()[name], value)


SKIPS = DecoderConfig(kind="joint", width=32, depth=3, heads=4, skips=(3, 1))


def skipping(prefix: int = 1) -> tuple[JointDecoder, Encoding]:
    """A decoder whose weights are no special ones, and an encoding with the layers it looks at."""
    generator = torch.Generator().manual_seed(2)
    model = build_decoder(SKIPS, encoder_width=24, grid=(4, 4), patch_values=9)
    initialise(model, 0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    given, norm = encoding(prefix), torch.nn.LayerNorm(24, eps=1e-6)
    layers = {number: torch.randn(2, prefix + 4, 24, generator=generator) for number in (1, 3)}
    assert isinstance(model, JointDecoder)
    return model.eval(), Encoding(given.tokens, given.prefix, given.visible, layers, norm=norm)


def by_hand(attention: CrossAttention, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Attention of one sample, [M, D] to [K, C], a head and a query at a time."""
    width, rows = x.shape[1] // attention.heads, []
    keys, values = attention.kv(context).chunk(2, dim=1)
    for query in attention.q(x):
        parts = []
        for head in range(attention.heads):
            own = slice(head * width, (head + 1) * width)
            weights = torch.stack([torch.exp(query[own] @ key[own] / width**0.5) for key in keys])
            parts.append(sum(w / weights.sum() * v[own] for w, v in zip(weights, values, strict=True)))
        rows.append(torch.cat(parts))
    found: torch.Tensor = attention.proj(torch.stack(rows))
    return found


@pytest.mark.parametrize("prefix", [0, 1])
def test_each_block_but_the_first_looks_at_a_level_of_the_encoder(prefix: int) -> None:
    model, given = skipping(prefix)
    assert given.visible is not None
    hidden = hidden_patches(given.visible, 16)
    with torch.no_grad():
        found = model(given)
        for sample in range(2):
            places = torch.cat([torch.zeros(prefix, 32), model.positions[given.visible[sample]]])
            x = torch.cat(
                [
                    model.embed(given.tokens[sample]) + places,
                    model.mask_token[0] + model.positions[hidden[sample]],
                ]
            )
            first, *others = model.blocks
            x = first(x.unsqueeze(0))[0]
            for block, level in zip(others, (3, 1), strict=True):
                assert isinstance(block, CrossSelfBlock)
                assert given.norm is not None
                context = model.embed(given.norm(given.layers[level][sample])) + places
                x = x + by_hand(block.cross, block.cross_norm(x), block.context_norm(context))
                x = x + block.attn(block.norm1(x).unsqueeze(0))[0]
                x = x + block.mlp(block.norm2(x))
            expected = model.pred(model.norm(x[prefix + 4 :]))
            torch.testing.assert_close(found[sample], expected, atol=1e-5, rtol=1e-5)


def test_skips_recomputed_give_the_same_gradients() -> None:
    found = []
    for recomputed in (False, True):
        model, given = skipping()
        model.checkpointing = recomputed
        model(given).square().sum().backward()
        found.append([value.grad for value in model.parameters()])
    for plain, again in zip(*found, strict=True):
        assert plain is not None
        torch.testing.assert_close(plain, again)
        assert bool(plain.any())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cross", "depth": 2, "skips": [0]}, "decoder.skips needs decoder.kind=joint"),
        ({"depth": 3, "skips": [2]}, r"decoder.skips \[2\] of a decoder with 3 blocks: .* so 2"),
        ({"depth": 1, "skips": []}, r"decoder.skips \[\] of a decoder with 1 blocks"),
        ({"depth": 2, "skips": [-1]}, "from 0 on"),
    ],
)
def test_skips_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DecoderConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "joint", "mix_layers": [0, 1]}, "needs decoder.kind=cross"),
        ({"kind": "cross", "mix_layers": []}, "different block numbers from 0 on, ascending"),
        ({"kind": "cross", "mix_layers": [1, 0]}, r"mix_layers \[1, 0\]: different"),
        ({"kind": "cross", "mix_layers": [-1]}, "from 0 on"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DecoderConfig.model_validate(settings)


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


@pytest.mark.parametrize("fused", [False, True])
def test_the_last_tokens_of_a_block_are_those_of_the_whole_block(fused: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    block = SelfBlock(32, 4)
    initialise(block, 0)
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    block.attn.fused_attn = fused
    x = torch.randn(2, 9, 32, generator=generator, requires_grad=True)
    weights = torch.randn(2, 5, 32, generator=generator)
    whole, part = block(x)[:, -5:], block(x, last=5)
    torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-5)
    inputs = [x, *block.parameters()]
    expected = torch.autograd.grad((whole * weights).sum(), inputs)
    for found, wanted in zip(torch.autograd.grad((part * weights).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


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


@pytest.mark.parametrize("skips", [False, True])
def test_every_block_of_a_joint_decoder_is_called(skips: bool) -> None:
    # What is compiled is the call of a block.
    model, given = skipping() if skips else (decoder("joint"), encoding())
    assert isinstance(model, JointDecoder)
    called: list[nn.Module] = []
    for block in model.blocks:
        block.register_forward_hook(lambda block, *_: called.append(block))
    model(given)
    assert called == [*model.blocks]
