"""What windows of the test area cost with token reduction."""

import numpy as np
import pytest
import torch

from terralean.cost.convention import count_operations, count_operations_at
from terralean.cost.macs import count_macs
from terralean.data.config import DataConfig
from terralean.data.pixel_noise import Noise, NoisyScene
from terralean.data.split import Region
from terralean.evaluate.token_cost import Left, TokenCost, document, key, pooled
from terralean.evaluate.token_count import AT_LEAST, AT_MOST, count_tokens, evenly, sample_size
from terralean.models import create
from terralean.predict import load
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes, Normalisation
from terralean.tokens.matp import GateConfig, MATPConfig
from terralean.tokens.topk import TopKConfig
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint

SIZES = {"image_px": 32, "decoder_width": 48, "decoder_layers": 1}
TOPK = TopKConfig(after=(2, 4), counts=(2, 1))
BY_CONTENT = MATPConfig(after=(2, 4), rule="relation", beta=0.3, relation_source="self_attn", gate=GateConfig(p=0), n_min=1)
RGB = Bands(names=("red", "green", "blue"))
EMPTY = Window(row=0, col=32, height=32, width=32)  # in the first image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with random weights that looks at windows of 32 px without overlap, 4 tokens each."""
    out = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    card = Card(
        version="0",
        task="segmentation",
        model="vit_tiny_segvit",
        sizes=dict(SIZES),
        bands=RGB,
        normalisation=Normalisation(mean=(100.0,) * 3, std=(50.0,) * 3),
        classes=Classes.named(("a", "b", "c")),
        tile_px=32,
        overlap_px=0,
        training=Training(data="", images=1, split="", leakage="", steps=1, minutes=0.0, seed=0),
    )
    save_checkpoint(create("vit_tiny_segvit", bands=3, classes=3, **SIZES), card, out)
    return out


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """2 x 3 windows of one image, the second without data, and a quarter of another image, one window."""
    out, found = tmp_path_factory.mktemp("images"), []
    for number, (height, width, part) in enumerate(
        ((64, 96, Window(row=0, col=0, height=64, width=96)), (64, 64, Window(row=32, col=32, height=32, width=32)))
    ):
        values = np.random.default_rng(number).integers(1, 255, (3, height, width)).astype(np.uint8)
        if not number:
            values[:, *EMPTY.slices()] = 0
        path = out / f"{number}.tif"
        write_scene(path, values, grid=Grid(width=width, height=height, crs=None), bands=RGB, nodata=0)
        found.append(Region(image=str(path), label=str(path), window=part, split="test"))
    return found


def count(folder, regions, reduce, **options) -> TokenCost:
    one, dense = (load(folder, device="cpu", reduce=which) for which in (reduce, None))
    return count_tokens(one, dense, regions, config=DataConfig(), progress=lambda done, total: None, **options)


def seen(predictor, region, window) -> torch.Tensor:
    with open_scene(region.image) as scene:
        values, valid = scene.crop(region.window).read(window)
    return predictor.seen(torch.from_numpy(values.astype(np.float32))[None], torch.from_numpy(valid)[None])


def test_a_fixed_number_of_tokens_gives_exact_shares_and_windows_without_data_are_not_counted(folder, regions):
    found = count(folder, regions, TOPK)
    assert found.left == (Left(layer=2, shares=(0.5,) * 6), Left(layer=4, shares=(0.25,) * 6))
    assert found.complete
    assert found.dense_operations == count_operations_at(load(folder, device="cpu").network, (1, 3, 32, 32))
    assert len(set(found.operations)) == 1
    predictor = load(folder, device="cpu", reduce=TOPK)
    image = seen(predictor, regions[1], Window(row=0, col=0, height=32, width=32))
    assert found.operations[0] == count_operations(predictor.network, image) < found.dense_operations
    assert found.macs[0] == count_macs(predictor.network, image).total < found.dense_macs


def test_each_window_is_counted_alone_and_in_the_order_of_the_map(folder, regions):
    found = count(folder, regions, BY_CONTENT)
    assert len(set(found.operations)) > 1
    predictor = load(folder, device="cpu", reduce=BY_CONTENT)
    corners = [(0, 0), (0, 64), (32, 0), (32, 32), (32, 64)]
    places = [(regions[0], Window(row=row, col=col, height=32, width=32)) for row, col in corners]
    images = [seen(predictor, *place) for place in [*places, (regions[1], Window(row=0, col=0, height=32, width=32))]]
    assert found.operations == tuple(count_operations(predictor.network, image) for image in images)
    points = predictor.network.trace(torch.cat(images))
    for left, point in zip(found.left, points, strict=True):
        assert left.layer == point.layer
        assert left.shares == tuple((point.left / 4).tolist())


def test_other_values_are_counted_where_scenes_are_seen_otherwise(folder, regions):
    def noisy(scene, region):
        noise = Noise(
            name="a", height=64, width=96, pixels=100_000, mode="saltpepper", seed=0, range=((1.0, 255.0),) * 3, whole=True
        )
        return NoisyScene(scene=scene.crop(region.window), part=region.window, noise=noise)

    clean, changed = count(folder, regions[:1], BY_CONTENT), count(folder, regions[:1], BY_CONTENT, see=noisy)
    assert len(changed.operations) == len(clean.operations) == 5
    assert changed.left != clean.left
    assert (changed.dense_operations, changed.complete) == (clean.dense_operations, True)


def test_of_many_windows_some_are_counted_that_lie_evenly(folder, tmp_path):
    values = np.random.default_rng(3).integers(1, 255, (3, 32, 40 * 32)).astype(np.uint8)
    write_scene(tmp_path / "long.tif", values, grid=Grid(width=40 * 32, height=32, crs=None), bands=RGB)
    path, told = str(tmp_path / "long.tif"), []
    whole = Window(row=0, col=0, height=32, width=40 * 32)
    one, dense = (load(folder, device="cpu", reduce=which) for which in (TOPK, None))
    region = Region(image=path, label=path, window=whole, split="test")
    found = count_tokens(one, dense, [region], config=DataConfig(), progress=lambda *done: told.append(done))
    assert (len(found.operations), found.complete) == (AT_LEAST, False)
    assert told == [(i + 1, AT_LEAST) for i in range(AT_LEAST)]


@pytest.mark.parametrize(("windows", "size"), [(1, 1), (32, 32), (33, 32), (128, 32), (400, 100), (10_000, AT_MOST)])
def test_how_many_are_counted(windows, size):
    assert sample_size(windows) == size


@pytest.mark.parametrize("count", [1, 7, 500])
def test_every_beginning_of_the_order_lies_evenly(count):
    order = evenly(count)
    assert sorted(order) == list(range(count))
    for size in range(1, count + 1):
        gaps = np.diff([-1, *sorted(order[:size]), count])
        assert gaps.max() <= 2.7 * count / size + 1


COST = TokenCost(
    operations=(100, 300),
    macs=(90, 270),
    left=(Left(layer=2, shares=(0.5, 0.25)),),
    dense_operations=400,
    dense_macs=360,
    complete=True,
)


def test_the_document_has_means_percentiles_and_the_dense_network():
    assert document(COST) == {
        "windows": 2,
        "all_windows": True,
        "operations": {"mean": 200, "p5": 110, "p95": 290, "dense": 400},
        "macs": {"mean": 180, "p5": 99, "p95": 261, "dense": 360},
        "left": [{"layer": 2, "mean": 0.375, "p5": 0.2625, "p95": 0.4875}],
    }
    assert COST.share == 0.5
    assert (key(COST), key(None)) == ({"reduction": document(COST)}, {})


def test_windows_of_several_runs_are_pooled():
    other = TokenCost(
        operations=(200,),
        macs=(180,),
        left=(Left(layer=2, shares=(1.0,)),),
        dense_operations=400,
        dense_macs=360,
        complete=False,
    )
    both = pooled([COST, other])
    assert (both.operations, both.macs, both.complete) == ((100, 300, 200), (90, 270, 180), False)
    assert both.left == (Left(layer=2, shares=(0.5, 0.25, 1.0)),)
    assert pooled([COST]) == COST
    assert pooled([None, None]) is None
