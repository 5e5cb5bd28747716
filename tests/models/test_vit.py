import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError, UnknownName
from terralean.layers.hooks import Hooks, Stream
from terralean.models.vit import ViTEncoder
from weights import fill, image

TINY = "test_vit"  # timm's smallest: 64 channels, 6 layers, 2 heads, patches of 16 px


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def encoder(
    name: str = TINY, *, image_px: int = 160, drop_path: float = 0.0, prefix: bool = True, norm: bool = True
) -> ViTEncoder:
    model = ViTEncoder(name, bands=3, image_px=image_px, drop_path=drop_path, class_token_in_sequence=prefix, final_norm=norm)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def close(ours: Tensor, theirs: Tensor, *, to: float = 1e-5) -> bool:
    return float((ours - theirs).norm() / theirs.norm()) < to


@pytest.mark.parametrize(
    "name", [TINY, "test_vit2", "test_vit3", pytest.param("deit3_small_patch16_224", marks=pytest.mark.slow)]
)
def test_tokens_are_those_of_timm(name):
    """Class tokens, layer scale, a norm behind the mean, positions with and without the class token's."""
    own = timm.create_model(name, num_classes=0).eval()
    px = own.patch_embed.img_size[0]
    ours = encoder(name, image_px=px, prefix=own.num_prefix_tokens > 0)
    own.norm = own.fc_norm if isinstance(own.norm, nn.Identity) else own.norm
    own.fc_norm, own.attn_pool = nn.Identity(), None
    own.load_state_dict(ours.body.state_dict())
    with torch.inference_mode():
        x = picture(2, 3, px, px)
        assert close(ours(x), own.forward_features(x)[:, own.num_prefix_tokens :])


def test_without_class_token_and_norm_the_blocks_see_the_image_alone():
    ours, x = encoder(prefix=False, norm=False), picture(1, 3, 160, 160)
    with torch.inference_mode():
        tokens = ours.body.patch_embed.proj(x).flatten(2).transpose(1, 2) + ours.body.pos_embed[:, 1:]
        assert close(ours(x), ours.body.blocks(tokens))
    assert not ours.body.cls_token.requires_grad  # nothing depends on it, and no optimiser or process waits for it
    assert encoder().body.cls_token.requires_grad


def test_positions_are_resized_bicubically():
    ours = encoder(prefix=False, norm=False)
    table = ours.body.pos_embed[:, 1:].unflatten(1, (10, 10)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        x = picture(1, 3, 96, 208)
        places = F.interpolate(table, size=(6, 13), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        patches = F.conv2d(x, ours.body.patch_embed.proj.weight, ours.body.patch_embed.proj.bias, stride=16)
        assert close(ours.embed(x).x, patches.flatten(2).transpose(1, 2) + places)


@pytest.mark.parametrize("size", [(1, 1), (16, 48), (37, 90), (64, 33)])
def test_an_image_of_any_size_is_seen_as_if_zeros_followed(size):
    ours, x = encoder(), picture(1, 3, *size)
    rows, columns = -(-size[0] // 16), -(-size[1] // 16)
    around = torch.zeros(1, 3, 16 * rows, 16 * columns)
    around[..., : size[0], : size[1]] = x
    with torch.inference_mode():
        found = ours(x)
        assert found.shape == (1, rows * columns, 64)
        assert torch.equal(found, ours(around))


@pytest.mark.parametrize("execution", ["packed", "padded", "masked"])
@pytest.mark.parametrize("prefix", [True, False])
def test_tokens_past_the_image_change_nothing(prefix, execution):
    ours, x = encoder(prefix=prefix), picture(2, 3, 48, 80)  # 3 x 5 patches in a grid of 4 x 8
    with torch.inference_mode():
        start = ours.embed(x, multiple=4)
        assert (start.grid, start.size) == ((4, 8), (3, 5))
        assert int(start.there[0].sum()) == 15 + ours.prefix
        end = ours.run(Stream(start.x, start.there), Hooks(), execution=execution)
        tokens = ours.finish(end.x[:, ours.prefix :]).unflatten(1, start.grid)[:, :3, :5].flatten(1, 2)
        assert close(tokens, ours(x))


def test_drop_path_rises_to_what_was_asked_for():
    model = encoder(drop_path=0.3)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.body.blocks]
    assert rates == pytest.approx([0.3 * i / (len(rates) - 1) for i in range(len(rates))])


def test_tables_and_tokens_are_not_decayed():
    assert encoder().no_weight_decay() == {"body.pos_embed", "body.cls_token"}


@pytest.mark.parametrize(
    ("name", "prefix", "error", "message"),
    [
        (
            "vit_tiny_patch61_224",
            True,
            UnknownName,
            "timm has no backbone 'vit_tiny_patch61_224'; nearest: vit_tiny_patch16_224",
        ),
        ("resnet18", True, ConfigError, r"resnet18 of timm .*use for instance vit_base_patch16_224"),
        ("vit_tiny_r_s16_p8_224", True, ConfigError, "is no plain vision transformer; use for instance"),
        ("swin_tiny_patch4_window7_224", True, ConfigError, "is no plain vision transformer"),
        ("vit_medium_patch16_gap_240", True, ConfigError, r"no class token; set model\.sizes\.class_token_in_sequence=false"),
    ],
)
def test_backbones_that_cannot_be_used_are_refused(name, prefix, error, message):
    with torch.device("meta"), pytest.raises(error, match=message):
        ViTEncoder(name, bands=3, image_px=224, drop_path=0.0, class_token_in_sequence=prefix, final_norm=True)
