"""A plain vision transformer of timm's as an encoder of tokens, with places where a method of token reduction may step in.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; weights and blocks are timm's. As dense prediction uses it
(Zhang et al., "SegViT", NeurIPS 2022; Zhang & Yao 2025): without the class token in the sequence and without the last norm
unless asked for, its table of positions resized to the image, for images of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.hooks import Execution, Hooks, Stream
from terralean.layers.running import Parts, arranged, padded, run_layer
from terralean.models.pyramid import check_name

KNOWN_TO_WORK = "vit_base_patch16_224, vit_tiny_patch16_224 or deit3_small_patch16_224"


class Embedded(NamedTuple):
    """An image as tokens, before the first layer."""

    x: Tensor  # (B, prefix + h * w, C)
    there: Tensor | None  # (B, prefix + h * w), false for tokens past the image; None: there are none
    grid: tuple[int, int]  # h, w of all tokens
    size: tuple[int, int]  # rows and columns of those that cover the image


class ViTEncoder(nn.Module):
    """(B, bands, H, W) -> tokens, for any H and W; the sides are filled up with zeros to whole patches."""

    def __init__(
        self, name: str, *, bands: int, image_px: int, drop_path: float, class_token_in_sequence: bool, final_norm: bool
    ) -> None:
        super().__init__()
        body = _body(name, bands=bands, image_px=image_px, drop_path=drop_path, final_norm=final_norm)
        self.body = body
        self.width, self.depth = body.embed_dim, len(body.blocks)
        self.patch_px = cast("tuple[int, int]", body.patch_embed.patch_size)
        self.prefix = body.num_prefix_tokens if class_token_in_sequence else 0
        if class_token_in_sequence and not self.prefix:
            raise ConfigError(f"{name} of timm has no class token; set model.sizes.class_token_in_sequence=false")
        if not self.prefix and body.cls_token is not None:
            body.cls_token.requires_grad_(False)  # kept, for weights have it, but nothing depends on it

    def forward(self, image: Tensor) -> Tensor:
        """Tokens of the last layer (B, h * w, C), nothing reduced."""
        start = self.embed(image)
        return self.finish(self.run(Stream(start.x), Hooks(), execution="masked").x[:, self.prefix :])

    def embed(self, image: Tensor, *, multiple: int = 1) -> Embedded:
        """Patches with their positions; the grid's sides are filled up to a multiple with tokens that are not there."""
        down, along = self.patch_px
        filled = F.pad(image, (0, -image.shape[-1] % along, 0, -image.shape[-2] % down))
        patches = self.body.patch_embed.norm(self.body.patch_embed.proj(filled).permute(0, 2, 3, 1))
        height, width = size = (patches.shape[1], patches.shape[2])
        prefix, places = self._positions(size)
        patches = patches if places is None else patches + places
        extra = (-height % multiple, -width % multiple)
        there = None
        if any(extra):
            there = F.pad(patches.new_ones(image.shape[0], height, width), (0, extra[1], 0, extra[0])) > 0
            patches = F.pad(patches, (0, 0, 0, extra[1], 0, extra[0]))
            there = F.pad(there.flatten(1), (self.prefix, 0), value=True)
        grid = (patches.shape[1], patches.shape[2])
        x = torch.cat([*(row.expand(image.shape[0], -1, -1) for row in prefix), patches.flatten(1, 2)], dim=1)
        return Embedded(self.body.norm_pre(self.body.pos_drop(x)), there, grid, size)

    def run(self, stream: Stream, hooks: Hooks, *, execution: Execution) -> Stream:
        """The stream after the last layer."""
        rows = arranged(stream, execution)
        for layer, block in enumerate(self._blocks(), start=1):
            if rows.stream.x.shape[-2] == 0:
                break  # nothing is on its way any more
            rows = run_layer(_parts(block), rows, hooks, layer=layer, execution=execution)
        return padded(rows)

    def finish(self, tokens: Tensor) -> Tensor:
        """The last norm, where there is one."""
        return self.body.norm(tokens)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        return {f"body.{name}" for name in self.body.no_weight_decay() if getattr(self.body, name, None) is not None}

    def _blocks(self) -> Iterator[Block]:
        yield from cast("Iterator[Block]", iter(self.body.blocks))

    def _positions(self, size: tuple[int, int]) -> tuple[list[Tensor], Tensor | None]:
        """Class and register tokens with their positions, each (1, n, C), and the table of the grid (1, h, w, C)."""
        body = self.body
        own_tokens = (body.cls_token, body.reg_token) if self.prefix else ()
        prefix: list[Tensor] = [token for token in own_tokens if token is not None]
        if body.pos_embed is None:
            return prefix, None
        own = 0 if body.no_embed_class else body.num_prefix_tokens
        if own and prefix:
            prefix = [torch.cat(prefix, dim=1) + body.pos_embed[:, :own]]
        table = body.pos_embed[:, own:].unflatten(1, body.patch_embed.grid_size)
        if torch.compiler.is_exporting() or table.shape[1:3] != size:  # the same where the sizes are; a program has no choice
            table = F.interpolate(table.permute(0, 3, 1, 2).float(), size=size, mode="bicubic", align_corners=False)
            table = table.permute(0, 2, 3, 1).to(body.pos_embed.dtype)
        return prefix, table


def _parts(block: Block) -> Parts:
    attn = cast(Attention, block.attn)

    def project(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = attn.qkv(y).unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)
        return attn.q_norm(query), attn.k_norm(key), value

    return Parts(
        norm1=block.norm1,
        project=project,
        output=lambda mixed: block.ls1(attn.proj_drop(attn.proj(attn.norm(mixed.flatten(-2))))),
        norm2=block.norm2,
        mlp=lambda y: block.ls2(block.mlp(y)),
        path1=block.drop_path1,
        path2=block.drop_path2,
        scale=attn.scale,
        drop=attn.attn_drop,
    )


def _body(name: str, *, bands: int, image_px: int, drop_path: float, final_norm: bool) -> VisionTransformer:
    """timm's network without its classifier."""
    check_name(name, example=KNOWN_TO_WORK)
    try:
        body: Any = timm.create_model(name, img_size=image_px, in_chans=bands, num_classes=0, drop_path_rate=drop_path)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} of timm cannot be built for {image_px} px ({error}); use for instance {KNOWN_TO_WORK}"
        ) from error
    if not _is_plain(body):
        raise ConfigError(f"{name} of timm is no plain vision transformer; use for instance {KNOWN_TO_WORK}")
    body.attn_pool = None
    if not final_norm:
        body.norm = nn.Identity()
    elif isinstance(body.norm, nn.Identity):
        body.norm = body.fc_norm  # of networks whose classifier takes a mean, norm and mean are in the other order
    body.fc_norm = nn.Identity()
    return body


def _is_plain(body: nn.Module) -> bool:
    """Patches by one convolution, and pre-norm blocks with one self-attention."""
    if type(body) is not VisionTransformer or type(body.patch_embed) is not PatchEmbed:
        return False
    return all(
        type(block) is Block and type(block.attn) is Attention and getattr(block.attn, "gate", None) is None
        for block in body.blocks
    )
