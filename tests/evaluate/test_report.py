import dataclasses
import html
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from terralean.errors import SizeError
from terralean.evaluate.figures import (
    Picture,
    draw_class_bars,
    draw_classes,
    draw_confusion,
    draw_curves,
    draw_errors,
    draw_image,
)
from terralean.evaluate.intervals import block_bootstrap
from terralean.evaluate.metrics import confusion, score, unmapped
from terralean.evaluate.report import SPACE, Baseline, Cost, Figures, Report, percent, render, verdict
from terralean.spec import Bands, Classes

NASTY = '<b>&"soil"\'</b>'
NAMES = ("Broad-leaved and mixed forest of the lowlands", NASTY, "water", "vineyards")
SECTIONS = ("verdict", "scores", "leakage", "pictures", "classes", "baselines", "confusion", "training", "cost", "recipe")


def maps(size: int = 120, seed: int = 0):
    """A reference of three of four classes, and a map that is mostly right and has a hole."""
    generator = np.random.default_rng(seed)
    reference = (np.add.outer(np.arange(size), np.arange(size)) // 17 % 3).astype(np.uint8)
    mapped = np.where(generator.random((size, size)) < 0.8, reference, generator.integers(0, 3, (size, size))).astype(np.uint8)
    reference[:20, :20] = 255
    mapped[60:64, 60:70] = 255
    return reference, mapped


@pytest.fixture(scope="module")
def report() -> Report:
    reference, mapped = maps()
    classes = Classes.named(NAMES)
    blocks = [(slice(r, r + 30), slice(c, c + 30)) for r in range(0, 120, 30) for c in range(0, 120, 30)]
    counts = np.stack([confusion(reference[b], mapped[b], classes=4) for b in blocks])
    lost = np.stack([unmapped(reference[b], mapped[b], classes=4) for b in blocks])
    scores = score(counts.sum(axis=0), unmapped=lost.sum(axis=0))
    found = block_bootstrap(counts, unmapped=lost, generator=np.random.default_rng(0), resamples=1000)
    rival = score(counts.sum(axis=0) + 30, unmapped=lost.sum(axis=0))
    values = np.random.default_rng(1).integers(0, 3000, (3, 120, 120)).astype(np.uint16)
    figures = Figures(
        image=draw_image(values, reference != 255, bands=Bands(names=("red", "green", "blue"))),
        reference=draw_classes(reference, classes=classes),
        map=draw_classes(mapped, classes=classes),
        errors=draw_errors(reference, mapped, classes=classes),
        bars=draw_class_bars(scores, intervals=found.intervals, names=NAMES, baselines={NASTY: rival}),
        confusion=draw_confusion(counts.sum(axis=0), unmapped=lost.sum(axis=0), names=NAMES),
        curves=draw_curves([{"step": 1, "loss": 2}, {"step": 2, "loss": 1}], losses={"loss": "training"}, score="miou"),
    )
    return Report(
        title=f"Accuracy {NASTY}",
        about=(("Model", f"tiny {NASTY}"),),
        date="2026-05-04",
        verdict=verdict(scores, intervals=found.intervals, names=NAMES, baselines={NASTY: rival}),
        classes=classes,
        scores=scores,
        intervals=found.intervals,
        intervals_note=found.note,
        leaks=False,
        leakage=f"Nothing shared {NASTY}.",
        leakage_findings=(f"finding {NASTY}",),
        baselines=(Baseline(name=f"Forest {NASTY}", explanation=f"Sees {NASTY}", scores=rival),),
        cost=Cost(
            parameters=8_640_000,
            macs=1.83e9,
            window_px=224,
            images_per_s=26.94,
            training_minutes=92.4,
            peak_memory_bytes=3 * 2**30,
            device=f"CPU {NASTY}",
        ),
        figures=figures,
        recipe=f"task: segmentation  # {NASTY}\n",
        versions=((f"torch {NASTY}", NASTY),),
        commands=(f"terralean train {NASTY}",),
    )


class Page(HTMLParser):
    """Attributes and tags of a page, and whether every tag that was opened is closed in order."""

    VOID = ("meta", "link", "img", "source", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_well_formed_document_that_needs_nothing_else(report):
    text = render(report)
    page = Page(text)
    assert not page.open
    assert not {"script", "iframe", "object", "base", "form"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", text)
    loaded = [value for _, name, value in page.attributes if name in ("src", "srcset", "href")]
    assert len(loaded) == 1 + 7 + 3  # the empty icon, seven pictures, three charts again on a dark ground
    assert all(value.startswith("data:") for value in loaded)
    assert "default-src 'none'" in text


def test_every_section_is_there_in_the_order_of_the_reader(report):
    text = render(report)
    places = [text.index(f'id="{name}"') for name in SECTIONS]
    assert places == sorted(places)


def test_nothing_a_user_names_becomes_markup(report):
    text = render(report)
    assert "<b>" not in re.sub(r'<b style="left:[\d.]+%"></b>', "", text)
    assert text.count(html.escape(NASTY).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")) >= 12


def test_the_page_shows_the_scores_with_their_intervals(report):
    text = html.unescape(render(report))
    assert percent(report.scores.oa) in text
    low, high = 100 * report.intervals.miou.low, 100 * report.intervals.miou.high
    assert f"95 %: {low:.1f} to {high:.1f}{SPACE}%" in text
    assert f"{report.scores.kappa:.3f}" in text
    assert report.intervals_note.replace(" %", f"{SPACE}%") in text


def test_a_class_that_nobody_holds_is_named_and_shown_as_a_dash(report):
    text = render(report)
    assert "left out of the means: vineyards." in text
    row = re.search(r"<span>vineyards</span>.*?</tr>", text).group()
    assert row.count("<td>–</td>") == 4  # noqa: RUF001 - the dash of the page
    assert "nan" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text).lower()


def test_a_class_that_only_the_map_holds_is_named(report):
    matrix = np.diag([5, 5, 5, 0])
    matrix[0, 3] = 1
    changed = dataclasses.replace(report, scores=score(matrix, unmapped=np.zeros(4, np.int64)))
    assert "Mapped but not in the reference, so IoU and F1 are 0 and count in the means: vineyards." in render(changed)


def test_pixels_without_a_class_are_counted_on_the_page(report):
    text = render(report)
    assert f"40 labelled pixels (0.29{SPACE}%) have no class in the map; each counts as an error." in text
    assert "labelled, but no class in the map" in text


def test_the_leakage_verdict_has_three_faces(report):
    assert "Training and test are kept apart" in render(report)
    assert "Training and test overlap" in render(dataclasses.replace(report, leaks=True))
    assert "It is not known whether" in render(dataclasses.replace(report, leaks=None))


def test_costs_are_in_units_a_person_reads(report):
    text = render(report)
    for words in ("8.64 million", "1.83 billion", "26.9 windows/s", "1 h 32 min", "3.00 GiB"):
        assert words in text
    bare = render(dataclasses.replace(report, cost=Cost(parameters=1200)))
    assert f"1{SPACE}200" in bare
    assert "Peak memory" not in bare


def test_a_page_without_figures_baselines_and_intervals_still_stands(report):
    bare = dataclasses.replace(
        report, figures=Figures(), baselines=(), intervals=None, intervals_note="No intervals: too few blocks.", commands=()
    )
    text = render(bare)
    assert not Page(text).open
    assert "No intervals: too few blocks." in text
    assert "no interval<" in text
    for name in ("baselines", "confusion", "training"):
        assert f'id="{name}"' not in text


def test_the_same_report_gives_the_same_page_below_three_megabytes(report):
    text = render(report)
    assert text == render(report)
    assert len(text.encode()) < 1_000_000


def test_a_page_that_is_too_large_names_the_figure(report):
    heavy = dataclasses.replace(report.figures, image=Picture(light=b"x" * 2_400_000))
    with pytest.raises(SizeError, match=r"at most 3: the figure 'image' alone has 2\.4 MB, draw it smaller"):
        render(dataclasses.replace(report, figures=heavy))


def test_the_verdict_names_the_lead_over_the_best_baseline_and_the_weakest_class():
    own = score(np.array([[90, 10], [20, 80]]), unmapped=np.zeros(2, np.int64))
    poor = score(np.array([[60, 40], [40, 60]]), unmapped=np.zeros(2, np.int64))
    poorer = score(np.array([[50, 50], [50, 50]]), unmapped=np.zeros(2, np.int64))
    told = verdict(own, intervals=None, names=("a", "b"), baselines={"forest": poor, "guess": poorer})
    assert told == (
        f"The map is right for 85.0{SPACE}% of the labelled test pixels.",
        f"Its mean IoU of 73.9{SPACE}% is 31.0 points above the best baseline (forest: 42.9{SPACE}%).",
        f"Weakest class: b (IoU 72.7{SPACE}%).",
    )


def test_the_verdict_admits_a_baseline_that_is_better_or_as_good():
    own = score(np.array([[60, 40], [40, 60]]), unmapped=np.zeros(2, np.int64))
    better = score(np.array([[90, 10], [20, 80]]), unmapped=np.zeros(2, np.int64))
    assert "the simple method is the better choice" in verdict(own, intervals=None, names="ab", baselines={"forest": better})[1]
    blocks = np.stack([np.array([[6 + i, 4], [4, 6 - i % 3]]) for i in range(8)])
    found = block_bootstrap(blocks, unmapped=np.zeros((8, 2), int), generator=np.random.default_rng(0)).intervals
    whole = score(blocks.sum(axis=0), unmapped=np.zeros(2, np.int64))
    assert "so the difference is not certain" in verdict(whole, intervals=found, names="ab", baselines={"forest": whole})[1]


def test_the_verdict_of_a_map_without_baselines_or_of_one_class_is_short():
    own = score(np.array([[9, 0], [0, 0]]), unmapped=np.zeros(2, np.int64))
    assert verdict(own, intervals=None, names="ab", baselines={}) == (
        f"The map is right for 100.0{SPACE}% of the labelled test pixels.",
    )


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.5, f"50.0{SPACE}%"), (1.0, f"100.0{SPACE}%"), (0.9999, f"99.9{SPACE}%"), (math.nan, "–")],  # noqa: RUF001
)
def test_percent(share, text):
    assert percent(share) == text
