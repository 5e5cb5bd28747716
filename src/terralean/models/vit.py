"""A plain vision transformer of timm's as an encoder of tokens, with places where a method of token reduction may step in.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; weights and blocks are timm's. As dense prediction uses it
(Zhang et al., "SegViT", NeurIPS 2022; Zhang & Yao 2025): without the class token in the sequence and without the last norm
unless asked for, its table of positions resized to the image, for images of any size.

Three ways of running a batch whose images hold different numbers of tokens give the same tokens. Masked does all the work of
a dense pass and leaves rows as they are, which training likes; padded works on the rows of the fullest image; packed has
only tokens in its linear layers and norms, and attention one call for all images of equal length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention, DropPath, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.hooks import Change, Execution, Hooks, Read, Seen, Stream
from terralean.models.pyramid import check_name
from terralean.tokens.packed import pack, pad, rows_of_equal_images

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
            there = F.pad(patches.new_ones(len(image), height, width), (0, extra[1], 0, extra[0])) > 0
            patches = F.pad(patches, (0, 0, 0, extra[1], 0, extra[0]))
            there = F.pad(there.flatten(1), (self.prefix, 0), value=True)
        grid = (patches.shape[1], patches.shape[2])
        x = torch.cat([*(row.expand(len(image), -1, -1) for row in prefix), patches.flatten(1, 2)], dim=1)
        return Embedded(self.body.norm_pre(self.body.pos_drop(x)), there, grid, size)

    def run(self, stream: Stream, hooks: Hooks, *, execution: Execution) -> Stream:
        """The stream after the last layer."""
        rows = arranged(stream, execution)
        for layer, block in enumerate(self._blocks(), start=1):
            if rows.stream.x.shape[-2] == 0:
                break  # nothing is on its way any more
            rows = _layer(block, rows, hooks, layer=layer, execution=execution)
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
        if table.shape[1:3] != size:
            table = F.interpolate(table.permute(0, 3, 1, 2).float(), size=size, mode="bicubic", align_corners=False)
            table = table.permute(0, 2, 3, 1).to(body.pos_embed.dtype)
        return prefix, table


class Rows(NamedTuple):
    """Tokens between two hooks: the stream, whose x (T, C) and size (T,) are packed where lengths are given."""

    stream: Stream
    lengths: tuple[int, ...] | None = None
    groups: tuple[Tensor, ...] = ()  # rows of images of equal length


def arranged(stream: Stream, execution: Execution) -> Rows:
    """As the layers take it."""
    if execution != "packed" or stream.there is None:
        return Rows(stream)
    x, lengths = pack(stream.x, stream.there)
    size = None if stream.size is None else stream.size[stream.there]
    return Rows(stream._replace(x=x, size=size), lengths, tuple(rows_of_equal_images(lengths, device=x.device)))


def padded(rows: Rows) -> Stream:
    """As hooks take it."""
    if rows.lengths is None:
        return rows.stream
    stream = rows.stream
    size = None if stream.size is None else pad(stream.size, rows.lengths, stream.there)[0]
    return stream._replace(x=pad(stream.x, rows.lengths, stream.there)[0], size=size)


def _layer(block: Block, rows: Rows, hooks: Hooks, *, layer: int, execution: Execution) -> Rows:
    before = rows.stream.x
    update, seen = _attention_sublayer(block, rows, hooks, layer=layer)
    rows = _added(rows, block.ls1(update), block.drop_path1)
    rows = _changed(rows, hooks.after_attention.get(layer), seen, execution)
    rows = _added(rows, block.ls2(_mlp_sublayer(block, rows, hooks, layer=layer)), block.drop_path2)
    if execution == "masked" and rows.stream.there is not None and before.shape == rows.stream.x.shape:
        kept = torch.where(rows.stream.there[..., None], rows.stream.x, before)
        rows = rows._replace(stream=rows.stream._replace(x=kept))
    return _changed(rows, hooks.after_block.get(layer), seen, execution)


def _changed(rows: Rows, change: Change | None, seen: Seen, execution: Execution) -> Rows:
    return rows if change is None else arranged(change(padded(rows), seen), execution)


def _added(rows: Rows, update: Tensor, path: nn.Module) -> Rows:
    """Drop path leaves out the update of whole images, packed or not."""
    if rows.lengths is not None and path.training and isinstance(path, DropPath):
        factor = path(update.new_ones(len(rows.lengths)))
        update = update * factor.repeat_interleave(torch.tensor(rows.lengths, device=update.device))[:, None]
    else:
        update = path(update)
    return rows._replace(stream=rows.stream._replace(x=rows.stream.x + update))


def _attention_sublayer(block: Block, rows: Rows, hooks: Hooks, *, layer: int) -> tuple[Tensor, Seen]:
    """What the attention adds to the rows, and what hooks of this layer see of it."""
    attn, y, around = cast(Attention, block.attn), block.norm1(rows.stream.x), hooks.around_attention.get(layer)
    if around is not None:
        stream = padded(rows._replace(stream=rows.stream._replace(x=y)))
        update = around(stream.x, stream.there, lambda x, there: _self_attention(attn, x, there=there))
        return _as_rows(update, rows), Seen()
    wants_keys = layer in hooks.after_attention or layer in hooks.after_block
    query, key, value = _projected(attn, y)
    mixed, read = _mixed(attn, query, key, value, rows, hooks.read.get(layer))
    if rows.lengths is not None:
        read = None if read is None else pad(read, rows.lengths, rows.stream.there)[0]
        key = pad(key, rows.lengths, rows.stream.there)[0] if wants_keys else key
    return _output(attn, mixed), Seen(read, key if wants_keys else None)


def _mlp_sublayer(block: Block, rows: Rows, hooks: Hooks, *, layer: int) -> Tensor:
    y, around = block.norm2(rows.stream.x), hooks.around_mlp.get(layer)
    if around is None:
        return block.mlp(y)
    stream = padded(rows._replace(stream=rows.stream._replace(x=y)))
    return _as_rows(around(stream.x, stream.there, lambda x, _: block.mlp(x)), rows)


def _as_rows(update: Tensor, rows: Rows) -> Tensor:
    return update if rows.lengths is None else pack(update, rows.stream.there).x


def _self_attention(attn: Attention, y: Tensor, *, there: Tensor | None) -> Tensor:
    query, key, value = _projected(attn, y)
    return _output(attn, _attend(attn, query, key, value, there=there, size=None, read=None)[0])


def _projected(attn: Attention, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., C) -> queries, keys and values, each (..., heads, d)."""
    query, key, value = attn.qkv(y).unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)
    return attn.q_norm(query), attn.k_norm(key), value


def _output(attn: Attention, mixed: Tensor) -> Tensor:
    return attn.proj_drop(attn.proj(attn.norm(mixed.flatten(-2))))


def _mixed(
    attn: Attention, query: Tensor, key: Tensor, value: Tensor, rows: Rows, read: Read | None
) -> tuple[Tensor, Tensor | None]:
    """Values mixed by attention, of rows in either form, and what is read of the map."""
    stream = rows.stream
    if rows.lengths is None:
        return _attend(attn, query, key, value, there=stream.there, size=stream.size, read=read)
    mixed = torch.empty_like(value)
    found = None if read is None else value.new_empty(len(value), dtype=torch.float32)
    for group in rows.groups:
        size = None if stream.size is None else stream.size[group]
        mixed[group], seen = _attend(attn, query[group], key[group], value[group], there=None, size=size, read=read)
        if found is not None and seen is not None:
            found[group] = seen
    return mixed, found


def _attend(
    attn: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    there: Tensor | None,
    size: Tensor | None,
    read: Read | None,
) -> tuple[Tensor, Tensor | None]:
    """(B, n, heads, d) each -> (B, n, heads, d), by a fused kernel unless the map is read."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    bias = _bias(there, size, dtype=query.dtype)
    if read is None:
        dropout = attn.attn_drop.p if attn.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=attn.scale)
        return mixed.transpose(1, 2), None
    scores = (query * attn.scale) @ key.transpose(-1, -2)
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    return (attn.attn_drop(weights) @ value).transpose(1, 2), read(weights, there)


def _bias(there: Tensor | None, size: Tensor | None, *, dtype: torch.dtype) -> Tensor | None:
    """Added to the scores of keys, (B, 1, 1, n): minus infinity where no token is, the logarithm of how many it stands for."""
    bias = None if size is None else size.to(dtype).log()
    if there is not None:
        bias = torch.zeros_like(there, dtype=dtype) if bias is None else bias
        # An image without tokens looks at all rows: its own are left alone, and no number must become NaN.
        bias = bias.masked_fill(~there & there.any(dim=1, keepdim=True), -torch.inf)
    return None if bias is None else bias[:, None, None, :]


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
