"""DToP's decisions with its own head, beside the authors'."""

from pathlib import Path

import numpy as np
import pytest
import torch

from terralean.layers.hooks import Setting, Stream, drop
from terralean.models.atm import ATMHead
from terralean.models.pruning import dtop_hooks
from terralean.tokens.dtop import DToPConfig, sure
from terralean.tokens.scores import class_map
from weights import fill, image

GOLDEN = Path(__file__).parents[1] / "golden" / "dtop_pruning.npz"


def cases() -> list[str]:
    with np.load(GOLDEN) as golden:
        return sorted({key.rsplit("/", 1)[0] for key in golden})


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    expected = torch.from_numpy(theirs)
    assert ours.shape == expected.shape
    return float((ours - expected).norm() / expected.norm())


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["packed", "masked"])
@pytest.mark.parametrize("case", cases())
def test_pruned_tokens_and_canvas_are_the_authors(case, execution):
    """Two points with the same head, as the reference ran it: on fresh tokens, less those that the first one took out."""
    classes, seed, shape = case.split("/")
    batch, tokens, width = map(int, shape.split("x"))
    head = ATMHead(width, classes=int(classes[1:]), width=384, heads=6, layers=3, mode="two_way").eval()
    head.load_state_dict(fill(head.state_dict()))
    with np.load(GOLDEN) as golden:
        expected = {key.rsplit("/", 1)[1]: golden[key] for key in golden if key.rsplit("/", 1)[0] == case}
    setting = Setting(
        grid=(32, tokens // 32),
        prefix=0,
        depth=2,
        classes=int(classes[1:]),
        execution=execution,
        training=False,
        done=None,
        seeds=list,
        heads={"1": head, "2": head},
    )
    config = DToPConfig(after=(1, 2), confidence=float(expected["threshold"]))
    hooks = dtop_hooks(config, setting)
    first, second = (torch.from_numpy(image(int(seed) + add, (batch, tokens, width))) for add in (0, 1000))
    with torch.inference_mode():
        found = class_map(*head(first))
        assert torch.equal(sure(found, None, confidence=config.confidence), torch.from_numpy(expected["above_threshold_1"]))
        stream = hooks.after_block[1](Stream(first), None)
        pruned = ~stream.record[0].alive.flatten(1)
        assert torch.equal(pruned, torch.from_numpy(expected["pruned_1"]))
        fresh = drop(Stream(second), ~pruned, setting=setting)
        stream = hooks.after_block[2](stream._replace(x=fresh.x, there=fresh.there), None)
        assert torch.equal(~stream.record[1].alive.flatten(1), torch.from_numpy(expected["pruned_2"]))
        objects = head(fresh.x, fresh.there).objects
    assert relative(stream.canvas[:, :, ::8], expected["canvas_2_every_8"]) < 1e-5
    assert relative(objects, expected["class_logits_2"]) < 1e-5
    assert relative(class_map(stream.canvas, objects)[:, :, ::8], expected["class_map_2_every_8"]) < 1e-5
