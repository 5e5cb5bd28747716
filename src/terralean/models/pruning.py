"""Methods that take tokens out, at the places where a network lets them: grade the tokens, decide, drop.

Scores are computed after a layer, of the tokens that are still on their way; class and register tokens are never graded and
never go. Auxiliary heads, where a method has them, are called `heads.<layer>`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from terralean.layers.hooks import Answer, Hooks, Point, Read, Seen, Setting, Stream, alive_on_grid, drop
from terralean.models.atm import auxiliary_head
from terralean.models.place import Place
from terralean.tokens import chance, dtop, matp, threshold, topk
from terralean.tokens.chance import RandomConfig
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.matp import AuxiliaryConfig, GateConfig, MATPConfig
from terralean.tokens.scores import attention_of_classes, attention_received, class_map, entropy
from terralean.tokens.threshold import ThresholdConfig
from terralean.tokens.topk import TopKConfig

Graded = MATPConfig | ThresholdConfig | TopKConfig


def matp_hooks(config: MATPConfig, setting: Setting) -> Hooks:
    """MATP: both scores under thresholds of the image's own."""
    return _graded_hooks(config, setting, lambda e, r, there: matp.candidates(e, r, there, config))


def threshold_hooks(config: ThresholdConfig, setting: Setting) -> Hooks:
    """Scores under fixed thresholds."""

    def gone(e: Tensor, r: Tensor, there: Tensor | None) -> Tensor:
        return threshold.candidates(e, r, there, config, classes=setting.classes)

    return _graded_hooks(config, setting, gone)


def topk_hooks(config: TopKConfig, setting: Setting) -> Hooks:
    """A fixed number of tokens by rank."""
    left = topk.how_many(config, tokens=setting.grid[0] * setting.grid[1])

    def point(stream: Stream, seen: Seen, *, layer: int, most: int) -> Stream:
        there = _image_part(stream.there, setting)
        scores, stream = _scores(stream, seen, layer=layer, config=config, setting=setting)
        with torch.no_grad():
            kept = topk.keep_best(topk.combined_rank(*scores, there), there, most=most)
        # Where every image has as many tokens, so has it afterwards, and shapes need not wait for values.
        return _take_out(stream, kept, layer=layer, setting=setting, most=most if there is None else None)

    places = zip(config.after, left, strict=True)
    return Hooks(read=_reads(config), after_block={at: partial(point, layer=at, most=most) for at, most in places})


def random_hooks(config: RandomConfig, setting: Setting) -> Hooks:
    """Tokens by chance."""
    drawn = chance.generators(setting.seeds(), seed=config.seed)
    lines = [chance.draw_line(config.images, g) for g in drawn] if config.images else []
    tokens = setting.grid[0] * setting.grid[1]

    def point(stream: Stream, _: Seen, *, number: int, layer: int) -> Stream:
        there = _image_part(stream.there, setting)
        device = stream.x.device
        if lines:
            counts = torch.tensor([round(line[number] * tokens) for line in lines], device=device)
        else:
            counts = chance.counts_of_shares(_alive_counts(stream, setting), config.shares[number])
        draws = _of_rows(chance.draw(drawn, tokens=tokens).to(device), stream, setting)
        return _take_out(stream, chance.keep_random(draws, there, counts), layer=layer, setting=setting)

    return Hooks(after_block={at: partial(point, number=i, layer=at) for i, at in enumerate(config.after)})


def dtop_hooks(config: DToPConfig, setting: Setting) -> Hooks:
    """DToP: tokens that a head is sure of are finished, and the head's word for them is final."""

    def point(stream: Stream, _: Seen, *, layer: int) -> Stream:
        there = _image_part(stream.there, setting)
        answer = _answer(stream, layer=layer, aux=config.aux, setting=setting)
        with torch.no_grad():
            found = class_map(answer.masks.float(), answer.objects.float())
            gone = dtop.finished(found, dtop.sure(found, there, confidence=config.confidence), context=config.context)
        stream = noted(stream, answer, setting=setting)
        return _take_out(stream, ~gone, layer=layer, setting=setting)

    return Hooks(after_block={at: partial(point, layer=at) for at in config.after}, survivors_only=True)


def graded_heads(config: Graded | DToPConfig, place: Place) -> nn.ModuleDict:
    """One auxiliary head a point, where the config's scores need them."""
    if not _needs_heads(config):
        return nn.ModuleDict()
    aux = config.aux
    return nn.ModuleDict(
        {
            str(layer): auxiliary_head(
                aux.kind,
                place.width,
                classes=place.classes,
                width=aux.width,
                heads=aux.heads,
                layers=aux.layers,
                mode=place.class_mode,
            )
            for layer in config.after
        }
    )


def noted(stream: Stream, answer: Answer, *, setting: Setting) -> Stream:
    """The stream with what a head says written onto the canvas, and in training kept for the loss.

    Of tokens that did not reach the head the canvas holds what an earlier one said, which is not trained by this one.
    """
    masks, shape = answer.masks, (*answer.masks.shape[:2], setting.grid[0] * setting.grid[1])
    before = masks.new_zeros(shape) if stream.canvas is None else stream.canvas.detach().to(masks.dtype)
    there = _image_part(stream.there, setting)
    index = None if stream.place is None else stream.place[:, None, setting.prefix :] - setting.prefix
    if there is not None:
        rows = before if index is None else before.gather(2, index.expand_as(masks))
        masks = torch.where(there[:, None], masks, rows)
    canvas = masks if index is None else before.scatter(2, index.expand_as(masks), masks)
    answers = (*stream.answers, Answer(canvas, answer.objects)) if setting.training else stream.answers
    return stream._replace(canvas=canvas, answers=answers)


Candidates = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _graded_hooks(config: MATPConfig | ThresholdConfig, setting: Setting, candidates: Candidates) -> Hooks:
    def point(stream: Stream, seen: Seen, *, layer: int) -> Stream:
        there = _image_part(stream.there, setting)
        (e, r), stream = _scores(stream, seen, layer=layer, config=config, setting=setting)
        by = r if e is None else e
        assert by is not None, "a rule looks at one score at least"
        nothing = torch.zeros_like(by)
        with torch.no_grad():
            gone = candidates(nothing if e is None else e, nothing if r is None else r, there)
            gone = _through_gate(gone, stream, config.gate, setting)
            gone, hit = matp.with_floor(gone, by, there, least=config.n_min)
        if not setting.training and not torch.compiler.is_exporting():
            matp.warn_of_floor(hit, least=config.n_min, layer=layer)
        return _take_out(stream, ~gone, layer=layer, setting=setting)

    return Hooks(read=_reads(config), after_block={at: partial(point, layer=at) for at in config.after})


def _through_gate(gone: Tensor, stream: Stream, gate: GateConfig, setting: Setting) -> Tensor:
    if not setting.training:
        return gone
    draws = torch.rand(len(gone), setting.grid[0] * setting.grid[1], device=gone.device)
    return matp.gated(gone, _of_rows(draws, stream, setting), probability=matp.keep_prob(setting.done, gate=gate))


def _needs_heads(config: Any) -> bool:
    if isinstance(config, DToPConfig):
        return True
    return _looks_at(config)[0] or config.relation_source == "aux_cross_attn"


def _looks_at(config: Graded) -> tuple[bool, bool]:
    """Whether it decides by entropy, and by relation."""
    if isinstance(config, TopKConfig):
        return config.by != "relation", config.by != "entropy"
    return config.rule != "relation", config.rule != "entropy"


def _reads(config: Graded) -> dict[int, Read]:
    if not _looks_at(config)[1] or config.relation_source != "self_attn":
        return {}
    read = partial(attention_received, exclude_self=config.exclude_self)
    return {layer: lambda weights, there: read(weights.detach(), there) for layer in config.after}


def _scores(
    stream: Stream, seen: Seen, *, layer: int, config: Graded, setting: Setting
) -> tuple[tuple[Tensor | None, Tensor | None], Stream]:
    """Entropy and relation (B, n) of the image's rows, where the config looks at them, and the stream with the head's say."""
    by_entropy, by_relation = _looks_at(config)
    there = _image_part(stream.there, setting)
    if not _needs_heads(config):
        assert seen.read is not None
        return (None, seen.read[:, setting.prefix :]), stream
    answer = _answer(stream, layer=layer, aux=config.aux, setting=setting)
    with torch.no_grad():
        e = entropy(answer.masks, answer.objects, source=config.entropy_source) if by_entropy else None
        r = None
        if by_relation:
            r = attention_of_classes(answer.masks, there) if seen.read is None else seen.read[:, setting.prefix :]
    return (e, r), noted(stream, answer, setting=setting)


def _answer(stream: Stream, *, layer: int, aux: AuxiliaryConfig, setting: Setting) -> Answer:
    x = stream.x[:, setting.prefix :]
    return setting.heads[str(layer)](x.detach() if aux.stop_gradient else x, _image_part(stream.there, setting))


def _take_out(stream: Stream, kept: Tensor, *, layer: int, setting: Setting, most: int | None = None) -> Stream:
    """Rows of the image that are not kept (B, n) leave the stream, and the record says so."""
    rows = torch.cat([kept.new_ones(kept.shape[0], setting.prefix), kept], dim=1)
    stream = drop(stream, rows, setting=setting, most=None if most is None else most + setting.prefix)
    alive = alive_on_grid(stream, setting=setting)
    return stream._replace(record=(*stream.record, Point(layer, alive.sum(dim=(1, 2)), alive)))


def _of_rows(values: Tensor, stream: Stream, setting: Setting) -> Tensor:
    """Values of all tokens of the grid (B, N) -> of the image's rows that are on their way (B, n)."""
    return values if stream.place is None else values.gather(1, stream.place[:, setting.prefix :] - setting.prefix)


def _image_part(there: Tensor | None, setting: Setting) -> Tensor | None:
    return None if there is None else there[:, setting.prefix :]


def _alive_counts(stream: Stream, setting: Setting) -> Tensor:
    there = _image_part(stream.there, setting)
    rows = stream.x.shape[1] - setting.prefix
    return torch.full((stream.x.shape[0],), rows, device=stream.x.device) if there is None else there.sum(dim=1)
