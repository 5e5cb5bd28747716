import math
import random
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from terralean.benchmark import figure
from terralean.benchmark.accuracy import Accuracy, read_accuracies
from terralean.benchmark.config import BenchmarkConfig, Size
from terralean.benchmark.figure import Box, Disc, check_figure, draw, place_labels
from terralean.benchmark.machine import describe
from terralean.benchmark.published import INFERENCE, PARAMETERS, table_3
from terralean.benchmark.run import Report, Row
from terralean.errors import ConfigError, OutputFailed

SVG = "{http://www.w3.org/2000/svg}"


def row(model: str, *, speed: float, millions: float, **changes) -> Row:
    values = {
        **{"model": model, "work": "inference", "mode": "folded", "precision": "bf16", "batch": 8, "bands": 3},
        **{"height_px": 224, "width_px": 224, "device": "EPYC", "threads": 2, "torch": "2.15", "best": True},
        **{"images_per_s": speed, "images_per_s_low": 0.95 * speed, "images_per_s_high": 1.1 * speed},
    }
    return Row(**{**values, "parameters": round(1e6 * millions), **changes})


def report(*rows: Row) -> Report:
    return Report(machine=describe(torch.device("cpu")), products=(), rows=rows)


@pytest.fixture(scope="module")
def paper() -> Report:
    """The paper's own figure: every model of its table 3 that is built here."""
    numbers = {(p.model, p.quantity): p.value for p in table_3() if p.model is not None}
    models = [model for model, quantity in numbers if quantity == INFERENCE]
    return report(*(row(m, speed=numbers[m, INFERENCE], millions=numbers[m, PARAMETERS]) for m in models))


def drawn(of: Report, words: list[str]) -> ElementTree.Element:
    return ElementTree.fromstring(draw(of, read_accuracies(words, models=[row.model for row in of.rows])))


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]


def markers(svg: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """Circles by the model that their tooltip names."""
    groups = [group for group in svg.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    return {group.find(f"{SVG}title").text.partition(":")[0]: group.find(f"{SVG}circle") for group in groups}


def overlap(one: Box, other: Box) -> bool:
    apart = one.right <= other.left or other.right <= one.left or one.bottom <= other.top or other.bottom <= one.top
    return not apart


def distance(box: Box, disc: Disc) -> float:
    return math.hypot(max(box.left - disc.x, 0, disc.x - box.right), max(box.top - disc.y, 0, disc.y - box.bottom))


def test_every_model_has_a_marker_and_a_label(paper):
    svg = drawn(paper, [])
    assert markers(svg).keys() == {row.model for row in paper.rows}
    assert {"LeMeViT-Tiny", "Swin-B", "BiFormer-T", "images a second (logarithmic)", "top-1 accuracy, %"} <= set(texts(svg))


def test_markers_lie_by_speed_and_accuracy_and_grow_with_parameters(paper):
    found = markers(drawn(paper, []))
    accuracies = read_accuracies([], models=list(found))
    place = {m: (float(c.get("cx")), float(c.get("cy")), float(c.get("r"))) for m, c in found.items()}
    rows = {row.model: row for row in paper.rows}
    for one, other in combinations(found, 2):
        faster = rows[one].images_per_s - rows[other].images_per_s
        righter = accuracies[one].percent - accuracies[other].percent
        assert (place[one][0] - place[other][0]) * faster >= 0
        assert (place[one][1] - place[other][1]) * righter <= 0
        areas = (place[one][2] / place[other][2]) ** 2
        assert areas == pytest.approx(rows[one].parameters / rows[other].parameters, rel=0.03)
    speeds = [("swin_base_patch4_window7_224", "lemevit_small"), ("pvt_v2_b4", "lemevit_base")]
    for one, other in speeds:
        ratio = math.log(rows[one].images_per_s / rows[other].images_per_s)
        assert place[one][0] - place[other][0] == pytest.approx(ratio * scale(place, rows), abs=0.3)


def scale(place, rows) -> float:
    """px of a factor of e."""
    one, other = "lemevit_tiny", "biformer_base"
    return (place[one][0] - place[other][0]) / math.log(rows[one].images_per_s / rows[other].images_per_s)


def test_published_accuracy_is_dashed_and_said(paper):
    svg = drawn(paper, ["published", "lemevit_tiny=77"])
    looks = {model: circle.get("class") for model, circle in markers(svg).items()}
    assert looks.pop("lemevit_tiny") == "filled"
    assert set(looks.values()) == {"hollow"}
    words = " ".join(texts(svg))
    assert "accuracy published, not measured" in words
    assert "Accuracy of dashed markers: published, ImageNet-1K at 224 px (Jiang et al. 2024)." in words
    titles = [title.text for title in svg.iter(f"{SVG}title")]
    assert any("lemevit_tiny: 5317.0 images/s (5051.1 .. 5848.7), folded bf16; 77 % (given); 8.64 M" in t for t in titles)


def test_models_without_accuracy_or_measurement_are_named(paper):
    failed = row("swin_tiny_patch4_window7_224", speed=1, millions=1, best=False, failure="RuntimeError: no")
    svg = drawn(report(paper.rows[0], row("resnet18", speed=50, millions=11), failed), [])
    assert "Not shown, for want of an accuracy or of a measurement: resnet18, swin_tiny_patch4_window7_224." in " ".join(
        texts(svg)
    )
    assert markers(svg).keys() == {paper.rows[0].model}


def test_published_accuracy_at_another_size_is_warned_of(paper):
    said = "Speeds are of images of 96x128 px, at which those accuracies were not measured."
    other = report(*(replace(row, height_px=96, width_px=128) for row in paper.rows))
    assert said in " ".join(texts(drawn(other, [])))
    assert said not in " ".join(texts(drawn(other, ["lemevit_tiny=77"])))
    assert "not measured." not in " ".join(texts(drawn(paper, [])))


def test_only_the_fastest_row_of_a_model_is_shown():
    slow, fast = row("resnet18", speed=10, millions=11, best=False), row("resnet18", speed=20, millions=11)
    svg = drawn(report(fast, slow), ["resnet18=70"])
    assert len(markers(svg)) == 1
    assert "20.0 images/s" in next(svg.iter(f"{SVG}title")).text


def test_colours_follow_light_and_dark(paper):
    text = draw(paper, read_accuracies([], models=[row.model for row in paper.rows]))
    light, dark = re.findall(r"svg \{ (--ink.*?) \}", text)
    assert light != dark
    assert light.count("--") == dark.count("--")
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r'(fill|stroke)="#', text)  # every colour is one of these


def test_names_cannot_break_the_document():
    name = "<b> & 'x'"
    svg = ElementTree.fromstring(draw(report(row(name, speed=10, millions=5)), {name: Accuracy(70.0, "<given>", False)}))
    assert name in texts(svg)


def test_nothing_to_show_is_an_error():
    with pytest.raises(OutputFailed, match="no model that was measured has an accuracy"):
        draw(
            report(row("resnet18", speed=10, millions=5, best=False, failure="no")), {"resnet18": Accuracy(70, "given", False)}
        )


@pytest.mark.parametrize("count", [1, 8, 30])
@pytest.mark.parametrize("spread", [0, 30, 300])
def test_labels_cover_neither_each_other_nor_a_marker_and_stay_near(count, spread):
    rng = random.Random(f"{count} {spread}")
    discs = [
        Disc(480 + rng.uniform(-1, 1) * spread, 320 + rng.uniform(-0.6, 0.6) * spread, rng.uniform(4, 20)) for _ in range(count)
    ]
    taken = [Box(disc.x - 30, disc.y - 1, disc.x + 30, disc.y + 1) for disc in discs]
    boxes = place_labels(discs, [rng.uniform(50, 130) for _ in discs], taken=taken)
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    assert not [box for box in boxes for line in taken if overlap(box, line)]
    assert not [box for box in boxes for disc in discs if distance(box, disc) < disc.radius]
    assert all(box.left > figure.LEFT and box.bottom < figure.HEIGHT - figure.BOTTOM for box in boxes)
    if spread == 300 and count == 8:
        assert max(distance(box, disc) - disc.radius for box, disc in zip(boxes, discs, strict=True)) < 20


def test_one_model_alone_has_axes():
    svg = drawn(report(row("resnet18", speed=17, millions=11)), ["resnet18=70"])
    numbers = [text for text in texts(svg) if re.fullmatch(r"[\d.]+", text)]
    assert len(numbers) > 5


def test_speeds_of_many_magnitudes_have_few_ticks():
    rows = [row("resnet18", speed=0.02, millions=11), row("resnet50", speed=9000, millions=25)]
    svg = drawn(report(*rows), ["resnet18=70", "resnet50=75"])
    ticks = [float(t) for t in texts(svg) if re.fullmatch(r"[\d.e+-]+", t)]
    assert {0.1, 1.0, 10.0, 1000.0} <= set(ticks)
    assert len(ticks) < 25


def test_figure_is_of_one_workload_and_an_svg():
    config = BenchmarkConfig(models=("a",))
    check_figure(config, Path("f.svg"))
    with pytest.raises(ConfigError, match=r"written as SVG; name it speed\.svg rather than speed\.png"):
        check_figure(config, Path("speed.png"))
    for changes in ({"batches": (1, 2)}, {"sizes": (Size(64, 64), Size(96, 96))}):
        with pytest.raises(ConfigError, match="one size and one batch"):
            check_figure(replace(config, **changes), Path("f.svg"))
