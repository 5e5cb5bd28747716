"""The graph is the network with all that stands around it, for every size that it says it takes."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import Painter, eager, make_card, source
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.export.graph import NOTHING, ONLY_BATCH, BytesGraph, Free, Graph, resized_by_products, trace
from terralean.predict.normalise import resized

CARD = make_card()


def pictures(*, batch: int = 2, height: int = 48, width: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    image = torch.randint(0, 4000, (batch, 4, height, width), generator=generator).float()
    valid = torch.rand(batch, height, width, generator=generator) > 0.2
    return image.masked_fill(~valid[:, None], torch.nan), valid


@pytest.mark.parametrize(
    "changes",
    [{}, {"shrink": 3}, {"temperature": 1.0}, {"task": "classification", "seen_px": 32}],
    ids=["plain", "shrunk", "untempered", "whole images"],
)
def test_a_graph_answers_as_the_predictor_does(changes):
    card = replace(CARD, **changes)
    given, predictor = source(card), eager(card)
    ask = predictor.recognise if card.task == "classification" else predictor
    for height, width in ((48, 48), (31, 64)):
        image, valid = pictures(height=height, width=width)
        with torch.inference_mode():
            found = Graph(given.model, card, dtype=torch.float32)(image, valid)
        torch.testing.assert_close(found, ask(image, valid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [7, 16, 33, 50])
@pytest.mark.parametrize("size", [(16, 16), (33, 20), (5, 61), (128, 97)])
def test_resizing_by_products_is_antialiased_resizing(size, side):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(side))
    torch.testing.assert_close(resized_by_products(image, side_px=side), resized(image, side_px=side), rtol=1e-4, atol=1e-5)


def test_a_free_program_takes_every_size_it_says():
    given = source(CARD)
    made = Graph(given.model, CARD, dtype=torch.float32)
    free = Free(step_px=4, least_px=20)
    traced = trace(made, bands=4, tile_px=48, wanted=[free, NOTHING])
    assert traced.fixed == {}
    assert traced.free == free
    program = traced.program.module()
    for batch, height, width in ((1, 20, 88), (5, 64, 24)):
        image, valid = pictures(batch=batch, height=height, width=width)
        torch.testing.assert_close(program(image, valid), made(image, valid))


def test_the_freest_axes_that_a_network_allows_are_free():
    class OfOneSize(Painter):
        def forward(self, image: Tensor) -> Tensor:
            grid = torch.arange(48 * 48.0).view(48, 48)  # as a table of positions is
            return super().forward(image) + grid

    made = Graph(OfOneSize(), CARD, dtype=torch.float32)
    traced = trace(made, bands=4, tile_px=48, wanted=[Free(), ONLY_BATCH, NOTHING])
    assert traced.fixed == {"height": 48, "width": 48}
    assert traced.refusal
    image, valid = pictures(batch=7)
    torch.testing.assert_close(traced.program.module()(image, valid), made(image, valid))


def test_a_tile_between_the_steps_fixes_height_and_width():
    made = Graph(Painter(), CARD, dtype=torch.float32)
    traced = trace(made, bands=4, tile_px=42, wanted=[Free(step_px=4, least_px=20), ONLY_BATCH])
    assert traced.fixed == {"height": 42, "width": 42}
    assert traced.refusal == "42 px is no multiple of 4 px from 20 px"


def test_a_network_whose_shapes_depend_on_values_is_no_graph():
    class Unforeseeable(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, : int(image.sum()) % 3 + 1]

    with pytest.raises(ConfigError, match="this network cannot be written as a graph for 48 px: "):
        trace(Graph(Unforeseeable(), CARD, dtype=torch.float32), bands=4, tile_px=48, wanted=[ONLY_BATCH, NOTHING])


def test_bytes_graph_takes_values_divided_by_255_and_nan_for_nodata():
    made = Graph(Painter(), CARD, dtype=torch.float32)
    image, valid = pictures()
    with torch.inference_mode():
        torch.testing.assert_close(BytesGraph(made)(image / 255), made(image, valid), rtol=1e-4, atol=1e-5)
