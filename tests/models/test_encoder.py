import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from facemae.config import EncoderConfig
from facemae.errors import ConfigError, UsageError
from facemae.models.encoder import MaskedEncoder, build_encoder, timm_arguments
from facemae.models.init import initialise
from facemae.models.positions import sincos_positions

TINY = EncoderConfig(name="test_vit", image_size=24, patch_size=6, channels=1)

VARIANTS = {
    "plain": TINY,
    "colour": TINY.model_copy(update={"channels": 3}),
    "registers": TINY.model_copy(update={"name": "vit_tiny_patch16_224", "registers": 4}),
    "tagged": TINY.model_copy(update={"name": "vit_tiny_patch16_224.augreg_in21k"}),
    "norm before the blocks": TINY.model_copy(update={"name": "vit_xsmall_patch16_clip_224"}),
    "no class token, no position for registers": TINY.model_copy(
        update={"name": "vit_pwee_patch16_reg1_gap_256", "registers": 1}
    ),
    "layer scale, qk norm": TINY.model_copy(update={"name": "test_vit3", "channels": 3}),
    "learned positions": TINY.model_copy(update={"position": "learned"}),
    "sizes of its own": TINY.model_copy(update={"width": 48, "depth": 7, "heads": 3}),
}


def build(config: EncoderConfig, seed: int = 0) -> MaskedEncoder:
    encoder = build_encoder(config)
    initialise(encoder, seed)
    return encoder.eval()


def images(config: EncoderConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, config.channels, config.image_size, config.image_size, generator=generator)


@pytest.mark.parametrize("name", VARIANTS)
def test_full_forward_equals_timm(name: str) -> None:
    config = VARIANTS[name]
    encoder = build(config)
    pixels = images(config)
    with torch.no_grad():
        encoding = encoder(pixels)
        torch.testing.assert_close(encoding.tokens, encoder.vit.forward_features(pixels), atol=1e-5, rtol=1e-5)
    assert encoding.patches.shape == (3, 16, encoder.width)


@pytest.mark.parametrize("name", VARIANTS)
def test_masked_forward_equals_timms_blocks_on_gathered_tokens(name: str) -> None:
    config = VARIANTS[name]
    encoder = build(config)
    pixels = images(config)
    visible = torch.tensor([[0, 3, 7, 8], [1, 2, 5, 15], [4, 6, 10, 11]])
    vit = encoder.vit
    with torch.no_grad():
        encoding = encoder(pixels, visible)
        every = vit._pos_embed(vit.patch_embed(pixels))
        prefix = every.shape[1] - 16
        rows = [torch.cat([sample[:prefix], sample[prefix + row]]) for sample, row in zip(every, visible, strict=True)]
        expected = vit.norm(vit.blocks(vit.norm_pre(torch.stack(rows))))
    assert encoding.prefix == prefix == config.registers + (1 if vit.has_class_token else 0)
    torch.testing.assert_close(encoding.tokens, expected, atol=1e-5, rtol=1e-5)


def test_hidden_pixels_do_not_reach_the_encoding() -> None:
    encoder = build(TINY)
    visible = torch.tensor([[0, 5, 10, 15]] * 3)
    pixels = images(TINY)
    hidden = pixels.clone()
    hidden[:, :, :6, 6:] = torch.nan
    with torch.no_grad():
        assert torch.equal(encoder(pixels, visible).tokens, encoder(hidden, visible).tokens)


def test_layers_equal_timms_intermediates() -> None:
    encoder = build(VARIANTS["registers"])
    pixels = images(TINY)
    with torch.no_grad():
        for norm in (False, True):
            ours = encoder(pixels, layers=(0, 5), norm_layers=norm).layers
            theirs = encoder.vit.forward_intermediates(
                pixels,
                indices=[0, 5],
                norm=norm,
                output_fmt="NLC",
                intermediates_only=True,
                return_prefix_tokens=True,
            )
            assert list(ours) == [0, 5]
            for layer, (patches, prefix) in zip((0, 5), theirs, strict=True):
                torch.testing.assert_close(ours[layer], torch.cat([prefix, patches], dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_load_into_plain_timm_by_name(name: str) -> None:
    config = VARIANTS[name]
    encoder = build(config)
    plain = timm.create_model(config.name, pretrained=False, **timm_arguments(config)).eval()
    plain.load_state_dict(encoder.vit.state_dict(), strict=True)
    pixels = images(config)
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels), encoder(pixels).tokens, atol=1e-5, rtol=1e-5)


def test_weights_load_into_timm_with_its_own_defaults() -> None:
    encoder = build(TINY.model_copy(update={"name": "vit_tiny_patch16_224"}))
    plain = timm.create_model("vit_tiny_patch16_224", img_size=24, patch_size=6, in_chans=1, num_classes=0).eval()
    plain.load_state_dict(encoder.vit.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(plain(images(TINY)), encoder(images(TINY)).tokens[:, 0], atol=1e-5, rtol=1e-5)


def test_sizes_of_its_own_go_before_those_of_the_name() -> None:
    encoder = build(VARIANTS["sizes of its own"])
    assert (encoder.width, encoder.depth, encoder.vit.blocks[0].attn.num_heads) == (48, 7, 3)
    with pytest.raises(ConfigError, match=r"timm cannot build 'test_vit' with .*'embed_dim': 50"):
        build(TINY.model_copy(update={"width": 50, "heads": 4}))


def test_fixed_positions_take_no_gradient_and_learned_ones_start_from_them() -> None:
    fixed, learned = build(TINY), build(VARIANTS["learned positions"])
    assert not fixed.vit.pos_embed.requires_grad
    assert learned.vit.pos_embed.requires_grad
    assert torch.equal(fixed.vit.pos_embed, learned.vit.pos_embed)
    visible = torch.tensor([[0, 1, 2, 3]] * 3)
    learned(images(TINY), visible).tokens.square().sum().backward()
    gradient = learned.vit.pos_embed.grad
    assert gradient is not None
    assert gradient[0, 1:5].abs().sum() > 0
    assert torch.equal(gradient[0, 5:], torch.zeros_like(gradient[0, 5:]))


@pytest.mark.parametrize(("name", "near"), [("vit_tinny_patch16_224", "vit_tiny_patch16_224"), ("resnet50", "vit")])
def test_a_name_that_is_no_plain_vit_gives_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_encoder(TINY.model_copy(update={"name": name}))
    assert name in str(caught.value)
    if name != "resnet50":
        assert near in str(caught.value)


def test_registers_in_the_name_must_agree() -> None:
    with pytest.raises(ConfigError, match=r"set encoder\.registers=4"):
        build_encoder(TINY.model_copy(update={"name": "vit_medium_patch16_reg4_gap_256"}))


def test_wrong_image_and_layer_are_named() -> None:
    encoder = build(TINY)
    for shape in ((1, 1, 24, 25), (1, 3, 24, 24), (1, 1, 0, 24), (1, 24, 24)):
        with pytest.raises(UsageError, match="1 x 24 x 24, or other multiples of 6"):
            encoder(torch.zeros(shape))
    with pytest.raises(UsageError, match=r"layers \[-1\]"):
        encoder(images(TINY), layers=(-1,))


def test_other_sizes_do_not_change_what_the_native_size_gives() -> None:
    encoder = build(TINY)
    pixels = images(TINY)
    with torch.no_grad():
        before = encoder(pixels).tokens
        encoder(torch.zeros(1, 1, 48, 12))
        assert torch.equal(encoder(pixels).tokens, before)
    assert set(encoder.state_dict()) == set(build(TINY).state_dict())


@pytest.mark.parametrize("name", VARIANTS)
def test_another_size_equals_an_encoder_built_for_it_with_the_same_positions(name: str) -> None:
    config = VARIANTS[name]
    encoder, larger = build(config), build(config.model_copy(update={"image_size": 36}))
    weights = encoder.vit.state_dict()
    if "pos_embed" in weights:
        prefix = encoder._placed_prefix
        if config.position == "learned":
            encoder.vit.pos_embed.data.normal_(generator=torch.Generator().manual_seed(2))
            weights["pos_embed"] = resample_abs_pos_embed(encoder.vit.pos_embed, [6, 6], num_prefix_tokens=prefix)
        else:
            weights["pos_embed"] = sincos_positions((6, 6), encoder.width, prefix, native=(4, 4))
    larger.vit.load_state_dict(weights)
    pixels = torch.randn(2, config.channels, 36, 36, generator=torch.Generator().manual_seed(1))
    visible = torch.tensor([[0, 3, 7, 35], [1, 2, 20, 30]])
    with torch.no_grad():
        for seen in (None, visible):
            found = encoder(pixels, seen)
            assert found.grid == (6, 6)
            torch.testing.assert_close(found.tokens, larger(pixels, seen).tokens, atol=1e-5, rtol=1e-5)


def test_learned_positions_learn_from_other_sizes() -> None:
    encoder = build(VARIANTS["learned positions"])
    encoder(torch.randn(2, 1, 12, 36, generator=torch.Generator().manual_seed(1))).tokens.square().sum().backward()
    gradient = encoder.vit.pos_embed.grad
    assert gradient is not None
    assert bool((gradient[0, 1:].abs().sum(dim=1) > 0).all())


def test_several_masks_are_rows_after_each_other() -> None:
    encoder = build(VARIANTS["registers"])
    pixels = images(TINY)
    noise = torch.rand(3, 5, 16, generator=torch.Generator().manual_seed(0))
    for masks, keep in ((2, 4), (5, 6)):  # together less and more than the patches of an image
        visible = noise[:, :masks].argsort(dim=-1)[..., :keep].sort(dim=-1).values
        with torch.no_grad():
            found = encoder(pixels, visible, layers=(0,))
            single = [encoder(pixels, visible[:, mask], layers=(0,)) for mask in range(masks)]
        assert (found.masks, found.tokens.shape[0]) == (masks, 3 * masks)
        assert found.visible is not None
        assert torch.equal(found.visible, visible.reshape(3 * masks, keep))
        expected = torch.stack([encoding.tokens for encoding in single], dim=1).flatten(0, 1)
        torch.testing.assert_close(found.tokens, expected, atol=1e-5, rtol=1e-5)
        first = found.first_mask()
        assert first.visible is not None
        assert torch.equal(first.visible, visible[:, 0])
        torch.testing.assert_close(first.tokens, single[0].tokens, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(first.layers[0], single[0].layers[0], atol=1e-5, rtol=1e-5)
