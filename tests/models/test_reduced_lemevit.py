"""LeMeViT whose third stage takes tokens out or merges them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.layers.segmenter import Segmenter
from terralean.models import create
from terralean.models.lemevit import LeMeViTConfig, LeMeViTPyramid
from terralean.models.light import LightHead
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.chance import RandomConfig
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.matp import AuxiliaryConfig, GateConfig, MATPConfig
from terralean.tokens.sparsevit import SparseViTConfig
from terralean.tokens.threshold import ThresholdConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig
from weights import fill, image

TOY = LeMeViTConfig(depths=(1, 1, 1, 4, 1), dims=(32, 32, 32, 64, 64), bands=4)
AUX = AuxiliaryConfig(width=24, heads=3)
MATP = MATPConfig(after=(1, 3), alpha=0.3, beta=1.0, aux=AUX)
PRUNING = [
    MATP,
    RandomConfig(after=(1, 3), images=((0.7, 0.2), (0.4, 0.3), (0.9, 0.1))),
    ThresholdConfig(after=(2,), rule="relation", relation=1.0),
    TopKConfig(after=(1, 3), counts=(11, 5)),
]
MERGING = [
    ToMeConfig(r=3),
    ToMeConfig(r=(0, 4, 2, 0), proportional=False),
    ToMeConfig(mode="sublayer", fraction=0.3),
    ALGMConfig(after=(1, 3), threshold=0.2),
    ELViTConfig(after=(2,), side=0.5),
]


def toy(reduce: Any = None) -> Segmenter:
    model = Segmenter(LeMeViTPyramid(TOY), LightHead(TOY.dims[1:], classes=5, width=16), classes=5)
    if reduce is not None:
        model.reduce_tokens(reduce)
    state = fill(model.state_dict())
    # Of heads with weights as small as these all tokens say the same.
    model.load_state_dict({k: 4 * v if k.startswith("heads.") and v.dim() > 1 else v for k, v in state.items()})
    return model.eval()


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(
    "nothing",
    [
        RandomConfig(after=(1, 2, 3, 4), shares=(1.0,) * 4),
        TopKConfig(after=(2,), shares=(1.0,)),
        ToMeConfig(r=0),
        ToMeConfig(mode="sublayer", fraction=0.0),
        ALGMConfig(after=(1,), threshold=1.1),
        MATPConfig(after=(1, 3), alpha=-9, aux=AUX),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (70, 100)])
def test_a_method_that_leaves_every_token_gives_the_dense_maps(nothing, size):
    x = pictures(2, 4, *size)
    with torch.inference_mode():
        dense = toy()
        reduced = toy(nothing)
        reduced.load_state_dict(dense.state_dict() | {k: v for k, v in reduced.state_dict().items() if k.startswith("heads.")})
        assert relative(reduced(x), dense(x)) < 1e-6


@pytest.mark.parametrize("config", PRUNING, ids=lambda config: config.method)
@pytest.mark.parametrize("size", [(64, 64), (70, 100)])
def test_three_ways_of_running_decide_and_answer_alike(config, size):
    x, found = pictures(3, 4, *size), {}
    for execution in ("packed", "padded", "masked"):
        model = toy(config)
        model.execution = execution
        with torch.inference_mode():
            found[execution] = (model(x), model.trace(x))
    scores, points = found["packed"]
    assert len({tuple(point.left.tolist()) for point in points}) == len(config.after)
    for execution in ("padded", "masked"):
        others, theirs = found[execution]
        assert relative(others, scores) < 1e-5
        for ours, other in zip(points, theirs, strict=True):
            assert torch.equal(ours.alive, other.alive)


@pytest.mark.parametrize("config", PRUNING + MERGING, ids=lambda config: config.method)
def test_an_image_does_not_depend_on_the_others_of_its_batch(config):
    x, model = pictures(3, 4, 70, 100), toy(config)
    with torch.inference_mode():
        together, alone = model(x), torch.cat([model(one[None]) for one in x])
        assert relative(together, alone) < 1e-5
        for i, one in enumerate(x):
            lefts = [
                (point.left[i].item(), single.left.item())
                for point, single in zip(model.trace(x), model.trace(one[None]), strict=True)
            ]
            assert all(ours == theirs for ours, theirs in lefts)


def test_tokens_that_were_taken_out_keep_their_value():
    model, x = toy(TopKConfig(after=(1, 3), counts=(11, 5))), pictures(1, 4, 64, 64)
    first, second = model.trace(x)
    backbone = model.backbone
    seen: list[Tensor] = []
    handle = backbone.downsample_layers[4].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        model(x)
        model.reduce_tokens(TopKConfig(after=(1,), counts=(11,)))
        model(x)
    handle.remove()
    gone = ~first.alive
    assert gone.sum() == 5
    both, once = (maps.permute(0, 2, 3, 1) for maps in seen)
    assert torch.equal(both[gone], once[gone])
    assert not torch.equal(both[second.alive], once[second.alive])


@pytest.mark.parametrize("config", [ToMeConfig(r=3), ALGMConfig(after=(1, 3), threshold=0.2)], ids=lambda config: config.method)
def test_merged_tokens_are_copied_back_to_their_members(config):
    model, x = toy(config), pictures(2, 4, 64, 64)
    seen: list[Tensor] = []
    model.backbone.downsample_layers[4].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        model(x)
        last = model.trace(x)[-1]
    tokens, group = seen[0].permute(0, 2, 3, 1).flatten(1, 2), last.group.flatten(1)
    for one, of in zip(tokens, group, strict=True):
        values = {int(g): one[of == g] for g in of.unique()}
        assert any(len(value) > 1 for value in values.values())
        assert all(torch.equal(value, value[:1].expand_as(value)) for value in values.values())
    assert [len(of.unique()) for of in group] == last.left.tolist()


def test_heads_learn_and_the_encoder_does_not_hear_of_it():
    for stop in (True, False):
        model = toy(
            MATPConfig(after=(1, 3), gate=GateConfig(p=0.5), aux=AuxiliaryConfig(width=24, heads=3, stop_gradient=stop))
        )
        output = model.train()(pictures(2, 4, 64, 64), done=0.5)
        assert output["auxiliary_masks"].shape == (2, 2, 5, 4, 4)
        (output["auxiliary_masks"].square().sum() + output["auxiliary_objects"].square().sum()).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.heads.parameters())
        heard = [p.grad is not None and bool(p.grad.abs().max() > 0) for p in model.backbone.parameters()]
        assert any(heard) != stop


@pytest.mark.parametrize("config", PRUNING + MERGING, ids=lambda config: config.method)
def test_every_parameter_of_the_backbone_learns(config):
    model = toy(config).train()
    output = model(pictures(3, 4, 64, 64), done=0.0)
    scores = output["scores"] if isinstance(output, dict) else output
    scores.square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None and not name.startswith("heads.")]
    assert missing == []


@pytest.mark.parametrize("config", [MATP, ToMeConfig(r=3), None], ids=str)
def test_a_folded_network_answers_alike(config):
    model, x = toy(config), pictures(2, 4, 64, 64)
    with torch.inference_mode():
        assert relative(model.fold()(x), model(x)) < 1e-5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MATPConfig(after=(3, 9)), "the network has the layers 1 to 8"),
        (DToPConfig(after=(2,)), "only attention-to-mask decoders take up"),
        (SparseViTConfig(), "leaves out windows and needs a network that has them"),
        (ToMeConfig(r=(1, 2)), "reduce.r lists 2 layers, the encoder has 8"),
    ],
)
def test_what_cannot_work_in_lemevit_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        create("lemevit_tiny_light", bands=3, classes=5, reduce=config)


def test_a_network_without_attention_has_no_tokens():
    with pytest.raises(ConfigError, match=r"TimmPyramid has no place for reduce\.method=tome"):
        create("light", bands=3, classes=5, reduce=ToMeConfig(), backbone="resnet18")
    with pytest.raises(ConfigError, match="model unetformer_resnet18 has no place"):
        create("unetformer_resnet18", bands=3, classes=5, reduce=ToMeConfig())


def test_without_a_method_there_is_nothing_of_it():
    assert not [name for name in toy().state_dict() if name.startswith("heads")]
    assert toy().trace(pictures(1, 4, 64, 64)) == ()
