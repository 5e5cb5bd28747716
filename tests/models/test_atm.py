import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.models.atm import ATMHead, LightATMHead, SlimATMHead, auxiliary_head
from terralean.tokens.scores import class_map
from weights import fill, image

GOLDEN = Path(__file__).parents[1] / "golden"


def head(classes: int = 6, *, heads: int = 6, mode="two_way") -> ATMHead:
    model = ATMHead(768, classes=classes, width=384, heads=heads, layers=3, mode=mode)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def relative(ours: Tensor, theirs: np.ndarray) -> float:
    expected = torch.from_numpy(theirs)
    assert ours.shape == expected.shape
    return float((ours - expected).norm() / expected.norm())


def cases() -> list[str]:
    with np.load(GOLDEN / "atm_head.npz") as golden:
        return sorted({key.rsplit("/", 1)[0] for key in golden})


@pytest.mark.parametrize("case", cases())
def test_head_agrees_with_the_authors(case):
    classes, heads, seed, shape, *offset = case.split("/")
    x = torch.from_numpy(image(int(seed), tuple(map(int, shape.split("x")))))
    if offset:
        x = x + torch.from_numpy(image(int(seed) + 1000, (len(x), 1, x.shape[2])))
    with torch.inference_mode():
        masks, objects = head(int(classes[1:]), heads=int(heads[1:]))(x)
        found = class_map(masks, objects)
    ours = {
        "mask_logits_every_8": masks[:, :, ::8],
        "mask_logits_mean": masks.mean(dim=2),
        "mask_logits_std": masks.std(dim=2, unbiased=False),
        "class_logits": objects,
        "class_map_every_8": found[:, :, ::8],
        "class_map_mean": found.mean(dim=2),
    }
    with np.load(GOLDEN / "atm_head.npz") as golden:
        for name, value in ours.items():
            assert relative(value, golden[f"{case}/{name}"]) < 1e-5, name


@pytest.mark.parametrize("classes", [6, 24])
def test_state_has_the_authors_keys_and_shapes(classes):
    expected = json.loads((GOLDEN / "atm_head_keys.json").read_text())[str(classes)]
    assert {key: list(value.shape) for key, value in head(classes).state_dict().items()} == expected


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_as_counted():
    assert count(head(6)) == 7_398_914
    assert count(LightATMHead(768, classes=6, width=192, heads=3, mode="two_way")) == 298_178
    assert count(SlimATMHead(768, classes=6, width=192, heads=3)) == 305_287


def small(kind: str, mode: str = "two_way") -> torch.nn.Module:
    torch.manual_seed(0)
    return auxiliary_head(kind, 20, classes=3, width=16, heads=2, layers=2, mode=mode).eval()


@pytest.mark.parametrize("kind", ["light", "slim", "full"])
def test_rows_that_are_no_tokens_change_nothing(kind):
    model, x = small(kind), torch.randn(2, 9, 20)
    there = torch.tensor([[True] * 6 + [False] * 3, [True, False] * 4 + [True]])
    masks, objects = model(x, there)
    for i in range(2):
        alone = model(x[i : i + 1, there[i]])
        torch.testing.assert_close(masks[i : i + 1, :, there[i]], alone.masks)
        torch.testing.assert_close(objects[i : i + 1], alone.objects)


@pytest.mark.parametrize("mode", ["two_way", "softmax"])
@pytest.mark.parametrize("kind", ["light", "slim", "full"])
def test_every_parameter_gets_a_gradient(kind, mode):
    model = small(kind, mode).train()
    masks, objects = model(torch.randn(2, 9, 20))
    assert objects.shape[-1] == (2 if mode == "two_way" and kind != "slim" else 4)
    (masks.square().mean() + objects.softmax(dim=-1)[..., 0].sum()).backward()
    # A bias of keys adds the same to all scores of a query and stays in the mask, so it has a gradient, too.
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_class_maps_worked():
    masks = torch.tensor([[[0.0, 100.0], [-100.0, 0.0]]])
    two_way = torch.tensor([[[0.0, 0.0], [0.0, 100.0]]])
    torch.testing.assert_close(class_map(masks, two_way), torch.tensor([[[0.25, 0.5], [0.0, 0.0]]]))
    # Queries that may be the other's class: the first is half the second class and half nothing, the second is the first.
    softmax = torch.tensor([[[-100.0, 5.0, 5.0], [100.0, 0.0, 0.0]]])
    torch.testing.assert_close(class_map(masks, softmax), torch.tensor([[[0.0, 0.5], [0.25, 0.5]]]))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="a multiple of its heads, got 10 and 3"):
        LightATMHead(8, classes=2, width=10, heads=3, mode="two_way")
    with pytest.raises(ConfigError, match="at least one layer, got 0"):
        ATMHead(8, classes=2, width=10, heads=2, layers=0, mode="two_way")
