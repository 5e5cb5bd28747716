"""Laws that every method has to keep that takes tokens out, in a small segmenter."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from terralean.layers.hooks import Stream
from terralean.models import create
from terralean.models.reducers import hooks_of
from terralean.models.segvit import SegViT, seeds_of_values
from terralean.tokens import matp
from terralean.tokens.chance import RandomConfig
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.matp import AuxiliaryConfig, GateConfig, MATPConfig
from terralean.tokens.threshold import ThresholdConfig
from terralean.tokens.topk import TopKConfig
from weights import fill, image

AUX = AuxiliaryConfig(width=16, heads=2)
CONFIGS: dict[str, Any] = {
    "matp": MATPConfig(after=(2, 3, 5), alpha=0.3, beta=0.8, aux=AUX),
    "matp_aux_attention": MATPConfig(
        after=(2, 4), alpha=0.3, relation_source="aux_cross_attn", entropy_source="softmax", aux=AUX
    ),
    "matp_entropy": MATPConfig(after=(2, 4), alpha=0.0, rule="entropy", aux=AuxiliaryConfig(kind="full", width=16, heads=2)),
    "matp_relation": MATPConfig(after=(2, 4), beta=0.0, rule="relation", exclude_self=True),
    "slim": MATPConfig(after=(2, 4), alpha=0.2, beta=0.8, aux=AuxiliaryConfig(kind="slim", width=16, heads=2)),
    "threshold": ThresholdConfig(after=(2, 4), entropy=0.99, relation=1.05, rule="and", aux=AUX),
    "topk": TopKConfig(after=(2, 4), shares=(0.5, 0.4)),
    "topk_both": TopKConfig(after=(2, 4), counts=(20, 9), by="both", aux=AUX),
    "random": RandomConfig(after=(2, 4), shares=(0.6, 0.5)),
    "random_images": RandomConfig(after=(2, 4), images=((0.7, 0.2), (0.4, 0.3), (0.9, 0.9))),
    "dtop": DToPConfig(after=(2, 4), confidence=0.32, context=2, aux=AuxiliaryConfig(kind="full", width=16, heads=2)),
}
EXECUTIONS = ("packed", "padded", "masked")
Make = Callable[..., SegViT]


def model(reduce: Any = None, **sizes: Any) -> SegViT:
    """Six layers of 64 channels; weights by name, larger than usual so that attention and classes differ."""
    options = {"image_px": 160, "drop_path": 0.0, "decoder_width": 16, "decoder_heads": 2, "decoder_layers": 2}
    built = create("segvit", bands=3, classes=4, backbone="test_vit", reduce=reduce, **(options | sizes))
    built.load_state_dict({key: 2 * v if v.ndim > 1 else v for key, v in fill(built.state_dict()).items()})
    return built.eval()


def pictures(images: int = 4, height: int = 96, width: int = 112) -> Tensor:
    """Six by seven patches; one image is nearly flat and one half flat, so that methods see differences."""
    x = torch.from_numpy(image(5, (images, 3, height, width)))
    x[0] *= 0.01
    x[1, :, :, : width // 2] *= 0.01
    return x


def alive(built: SegViT, x: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return [point.alive for point in built.trace(x)]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("prefix", [False, True], ids=["image", "class_token"])
def test_three_ways_of_running_decide_alike_and_give_the_same_scores(name, prefix):
    x, found = pictures(), {}
    for execution in EXECUTIONS:
        built = model(CONFIGS[name], execution=execution, class_token_in_sequence=prefix)
        with torch.inference_mode():
            found[execution] = alive(built, x), built(x)
    for execution in ("padded", "masked"):
        assert all(torch.equal(a, b) for a, b in zip(found["packed"][0], found[execution][0], strict=True))
        torch.testing.assert_close(found["packed"][1], found[execution][1], rtol=0, atol=1e-4)
    left = torch.stack([a.sum(dim=(1, 2)) for a in found["packed"][0]])
    assert (left[-1] < 42).any(), "nothing was taken out, so that nothing was compared"
    assert (left.diff(dim=0) <= 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_encoder_tokens_agree_and_tokens_taken_out_are_as_they_were(name):
    """What the decoder gets of a token that is gone is, bit for bit, what the token was when it went."""
    x, ends = pictures(), []
    for execution in EXECUTIONS:
        built = model(CONFIGS[name], execution=execution)
        with torch.inference_mode():
            start = built.backbone.embed(x)
            setting = built._setting(x, start, done=None)
            hooks = hooks_of(CONFIGS[name], setting)
            at_points: list[Tensor] = []

            def noting(stream: Stream, seen: Any, *, change: Any, seen_by: list[Tensor] = at_points) -> Stream:
                changed = change(stream, seen)
                seen_by.append(hooks.restore(changed))  # noqa: B023 - used in this turn alone
                return changed

            wrapped = {
                k: (lambda s, seen, change=change: noting(s, seen, change=change)) for k, change in hooks.after_block.items()
            }
            watched = type(hooks)(read=hooks.read, after_block=wrapped, survivors_only=hooks.survivors_only)
            end = built.backbone.run(Stream(start.x), watched, execution=execution)
            tokens = hooks.restore(end)
        ends.append(tokens)
        for point, values in zip(end.record, at_points, strict=True):
            gone = ~point.alive.flatten(1)
            assert torch.equal(tokens[gone], values[gone])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-4)
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_decisions_of_an_image_are_its_own(name, execution):
    built, x = model(CONFIGS[name], execution=execution), pictures()
    together = alive(built, x)
    for i in (0, 2):
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, alive(built, x[i : i + 1]), strict=True))
    with torch.inference_mode():
        torch.testing.assert_close(built(x)[2:3], built(x[2:3]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_size_that_fits_no_patch_is_taken(name):
    built = model(CONFIGS[name])
    with torch.inference_mode():
        x = pictures(2, 41, 70)
        assert built(x).shape == (2, 4, 41, 70)
        assert built(x).isfinite().all()
        assert built.trace(x)[0].alive.shape == (2, 3, 5)


# Training


def train(reduce: Any, **sizes: Any) -> SegViT:
    return model(reduce, **sizes).train()


def quiet(built: SegViT) -> SegViT:
    """In training, but for the dropout."""
    for part in built.modules():
        if isinstance(part, torch.nn.Dropout):
            part.eval()
    return built


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind", ["light", "slim", "full"])
@pytest.mark.parametrize("stop", [True, False])
def test_auxiliary_loss_reaches_the_encoder_only_without_the_gradient_stop(kind, stop, execution):
    aux = AuxiliaryConfig(kind=kind, width=16, heads=2, stop_gradient=stop)
    built = train(MATPConfig(after=(2, 3, 5), alpha=0.3, aux=aux), training_execution=execution)
    output = built(pictures())
    (output["auxiliary_masks"].square().sum() + output["auxiliary_objects"].softmax(dim=-1)[..., 0].sum()).backward()
    reached = {name for name, p in built.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    own = {name for name, _ in built.named_parameters() if name.startswith("heads.")}
    assert own <= reached
    assert not any(name.startswith("head.") for name in reached)
    assert any(name.startswith("backbone.") for name in reached) is not stop


@pytest.mark.parametrize("name", ["matp", "topk_both", "dtop", "threshold"])
def test_every_parameter_gets_a_gradient(name):
    built = train(CONFIGS[name])
    output = built(pictures())
    sum(v.float().square().mean() for v in output.values()).backward()
    assert not [key for key, p in built.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@pytest.mark.parametrize("name", ["matp", "dtop", "topk"])
def test_gradients_do_not_depend_on_the_way_of_running(name):
    """Drop path included, which leaves out whole images."""
    found = []
    for execution in EXECUTIONS:
        built = quiet(train(CONFIGS[name], training_execution=execution, drop_path=0.4))
        torch.manual_seed(3)
        built(pictures())["scores"].square().mean().backward()
        found.append(built.backbone.body.blocks[0].attn.qkv.weight.grad)
    for other in found[1:]:
        assert float((other - found[0]).norm() / found[0].norm()) < 1e-4


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", ["matp", "matp_aux_attention", "dtop", "topk_both", "random"])
def test_half_precision_is_a_case(name, execution):
    """With layers in bfloat16 the scores stay near those of float32, where the same tokens go."""
    built, x = model(CONFIGS[name], execution=execution), pictures()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        scores, half = built(x), [point.alive for point in built.trace(x)]
    with torch.inference_mode():
        same = torch.stack([(a == b).float().mean() for a, b in zip(half, alive(built, x), strict=True)])
        assert same.min() > 0.8
        assert scores.isfinite().all()
        assert float((scores.exp() - built(x).exp()).abs().mean()) < 0.05
        assert built.bfloat16()(x.bfloat16()).isfinite().all()


def test_class_logits_of_all_classes_and_none_are_a_case():
    built, x = model(CONFIGS["matp"], class_mode="softmax"), pictures()
    other = model(CONFIGS["matp"], class_mode="softmax", execution="masked")
    assert any((point < 42).any() for point in (a.sum(dim=(1, 2)) for a in alive(built, x)))
    with torch.inference_mode():
        torch.testing.assert_close(built(x), other(x), rtol=0, atol=1e-4)


def kept_share(reduce: Any, *, seed: int, done: float | None = None) -> float:
    built, x = quiet(train(reduce)), pictures(16)
    torch.manual_seed(seed)
    with torch.no_grad():
        return float(built._run(x, done=done).record[0].alive.float().mean())


def gate(p: float, mode: str = "bernoulli") -> MATPConfig:
    return MATPConfig(after=(3,), alpha=0.3, beta=0.8, aux=AUX, gate=GateConfig(mode=mode, p=p))


def test_gate_keeps_its_share_of_what_would_go():
    plain = kept_share(gate(0.0), seed=0)
    with torch.inference_mode():
        assert float(model(gate(1.0)).trace(pictures(16))[0].alive.float().mean()) == plain, "use knows no gate"
    assert 0.05 < plain < 0.95
    assert kept_share(gate(1.0), seed=0) == 1
    expected = plain + (1 - plain) * 0.5
    assert sum(kept_share(gate(0.5), seed=seed) for seed in range(6)) / 6 == pytest.approx(expected, abs=0.03)


def test_gate_can_go_by_what_is_done_of_the_training():
    plain = kept_share(gate(0.0), seed=0)
    assert kept_share(gate(0.4, "warmup_fraction"), seed=0, done=0.3) == 1
    assert kept_share(gate(0.4, "warmup_fraction"), seed=0, done=0.5) == plain
    assert plain < kept_share(gate(0.4, "linear"), seed=0, done=0.2) < 1


def test_random_tokens_are_drawn_anew_in_training_and_by_the_image_in_use():
    built, x = model(CONFIGS["random"]), pictures()
    first, again = alive(built, x), alive(built, x)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], alive(built, x + 1e-3)[1])
    built.train()
    torch.manual_seed(0)
    one, two = (built._run(x, done=None).record[1].alive for _ in range(2))
    assert not torch.equal(one, two)


def test_seeds_do_not_depend_on_the_batch():
    x = pictures()
    assert seeds_of_values(x)[2:3] == seeds_of_values(x[2:3].clone())
    assert len(set(seeds_of_values(x))) == 4


def test_tokens_of_a_line_are_left():
    built, x = model(CONFIGS["random_images"]), pictures(12)
    left = torch.stack([a.sum(dim=(1, 2)) for a in alive(built, x)], dim=1)
    lines = {tuple(round(share * 42) for share in line) for line in CONFIGS["random_images"].images}
    assert {tuple(row) for row in left.tolist()} == lines


# What is told and refused


def test_floor_is_obeyed_and_told(caplog, monkeypatch):
    monkeypatch.setattr(matp, "_told", set())
    config = MATPConfig(after=(2,), alpha=9.0, beta=9.0, n_min=3, aux=AUX)
    with caplog.at_level(logging.WARNING):
        left = [a.sum(dim=(1, 2)).tolist() for a in alive(model(config), pictures())]
    assert left == [[3, 3, 3, 3]]
    assert "n_min = 3 tokens in 4 of 4 images" in caplog.text


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_nothing_left_is_a_case(execution):
    """Without a floor all tokens go after layer 2; the rest of the layers has nothing to do."""
    config = MATPConfig(after=(2, 4), alpha=9.0, beta=9.0, n_min=0, aux=AUX)
    built, x = model(config, execution=execution), pictures()
    with torch.inference_mode():
        start = built.backbone.embed(x).x
        for block in built.backbone.body.blocks[:2]:
            start = block(start)
        masks, objects = built.head(start)
        run = built._run(x, done=None)
        torch.testing.assert_close(run.answer.masks.flatten(2), masks, rtol=0, atol=1e-4)
        torch.testing.assert_close(run.answer.objects, objects, rtol=0, atol=1e-4)
