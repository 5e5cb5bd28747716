import numpy as np
import pytest
from PIL import Image

from terralean.explain.part import in_places
from terralean.explain.strips import Lattice
from terralean.explain.token_figure import TokensShown
from terralean.explain.token_numbers import TokenTally
from terralean.explain.token_words import token_verdict, token_words
from terralean.explain.tokens import Decisions, Kept, Tracer
from terralean.mapping.plan import Plan
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.tokens.sparsevit import SparseViTConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig

TOPK = TopKConfig(after=(2, 4), counts=(9, 4))
LATTICE = Lattice(plan=Plan(grid=Grid(width=64, height=64, crs=None), tile_px=64, overlap_px=0), side=4)


def decisions(*sides: int, merges: bool = False) -> Decisions:
    layers = (np.arange(side**2).reshape(side, side) * (1 if merges else 0) for side in sides)
    points = (Kept(layer=2 * (i + 1), left=int(merges) * codes.size, codes=codes) for i, codes in enumerate(layers))
    return Decisions(merges=merges, points=tuple(points))


def tally(*given: Decisions, data: np.ndarray | None = None) -> TokenTally:
    found = TokenTally()
    for number, one in enumerate(given):
        found.add(one, np.ones((one.side, one.side), bool) if data is None else data, row=0, col=64 * number)
    return found


def test_stages_begin_anew_and_sparse_windows_move(reduced, predictor):
    vit = Tracer(reduced(TOPK))
    assert vit.stays_out(decisions(4, 4))
    assert not vit.stays_out(decisions(8, 4))
    line = "every stage of the network begins with all of its tokens, and shares are of these"
    assert line in token_verdict(vit, LATTICE, tally(decisions(8, 4)), sample=decisions(8, 4), overlap_px=0)
    assert line not in token_verdict(vit, LATTICE, tally(decisions(4, 4)), sample=decisions(4, 4), overlap_px=0)
    vit.reduce = SparseViTConfig()
    assert not vit.stays_out(decisions(4, 4))
    assert token_verdict(vit, LATTICE, tally(decisions(4)), sample=decisions(4), overlap_px=0) == (
        "layer 2 keeps 0.0% of the tokens",
        "windows that a block leaves out are passed on as they are; those of the next block lie elsewhere",
    )


def test_windows_that_differ_have_their_spread(reduced):
    one = decisions(4)
    other = Decisions(merges=False, points=(Kept(layer=2, left=16, codes=np.ones((4, 4), np.int64)),))
    found = token_verdict(Tracer(reduced(TOPK)), LATTICE, tally(one, other), sample=one, overlap_px=8)
    assert found == (
        "layer 2 keeps 50% (p5 0.0%, p95 100%) of the tokens",
        "2 windows of 64 px, each with decisions of its own: where they meet, what goes on may change",
        "windows overlap by 0 px here, in a map by 8 px: only so do all tokens lie on one grid",
    )


@pytest.mark.parametrize(
    ("config", "sizes", "legend", "caption"),
    [
        (
            TOPK,
            None,
            ("taken out after layer 2", "taken out after layer 4", "goes through all, as it is"),
            "how far each token went",
        ),
        (
            SparseViTConfig(),
            None,
            ("goes on at 0 of 2 layers", "goes on at 1 of 2 layers", "at all of them, as it is"),
            "at how many layers each token went on",
        ),
        (ToMeConfig(), [1, 2, 3, 4], ("3 to 4 together", "2 together", "alone, as it is"), "how many tokens are together"),
        (
            ToMeConfig(),
            [1, 2, 5, 256],
            ("65 to 256 together", "17 to 64 together", "5 to 16 together", "2 to 4 together", "alone, as it is"),
            "how many tokens are together",
        ),
    ],
)
def test_the_legend_says_what_the_shades_are(reduced, tmp_path, config, sizes, legend, caption):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "scene.png")
    tracer, sample = Tracer(reduced(TOPK)), decisions(4, 4, merges=sizes is not None)
    tracer.reduce = config
    shape = (2, 4, 4)
    shown = TokensShown(
        scene=np.zeros((64, 64, 3), np.uint8),
        merges=sample.merges,
        codes=np.zeros(shape, np.int64),
        sizes=np.broadcast_to(np.array(sizes or [1] * 4, np.uint16), shape),
        data=np.ones(shape[1:], bool),
        box=(0.0, 0.0, 1.0, 1.0),
    )
    part = Window(row=0, col=0, height=32, width=64)
    with open_scene(tmp_path / "scene.png") as scene:
        found = token_words(tracer, scene, LATTICE, part=part, shown=shown, tally=tally(sample), sample=sample)
    assert found.legend == legend
    assert found.sum.name == caption
    assert found.scene == "scene.png, 64 x 32 px from row 0, column 0"
    assert found.lines[0] == "1 window of 64 px, each of 4 x 4 tokens of 16 px"
    assert found.lines[1].endswith("; shares are of the whole scene")
    assert [one.name for one in found.captions][1].startswith("after layer 4: ")
    assert in_places(part, LATTICE) == Window(row=0, col=0, height=2, width=4)
