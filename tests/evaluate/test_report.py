import dataclasses
import html
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from terralean.errors import SizeError
from terralean.evaluate import calibration_page
from terralean.evaluate.calibration import calibrated
from terralean.evaluate.calibration_page import CalibrationSection
from terralean.evaluate.compare import Comparison, compare, verdict
from terralean.evaluate.figures import (
    Picture,
    draw_classes,
    draw_errors,
    draw_image,
    draw_losses,
    draw_matrix,
    draw_score,
)
from terralean.evaluate.found import accuracy_sentence, rival_sentence, short_name, weakness_sentence
from terralean.evaluate.intervals import join, mean_bootstrap
from terralean.evaluate.metrics import confusion, mean, score, spread, unmapped
from terralean.evaluate.page import SPACE, Cost, percent, short_count
from terralean.evaluate.reliability import Reliability, sums, without
from terralean.evaluate.report import Baseline, Figures, NoiseTable, Peer, Report, SeedScores, render
from terralean.evaluate.token_cost import Left, TokenCost
from terralean.evaluate.token_page import Costed, cells, section
from terralean.spec import Bands, Classes

NASTY = '<b>&"soil"\'</b>'
NAMES = ("Broad-leaved and mixed forest of the lowlands", NASTY, "water", "vineyards")
SECTIONS = (
    *("verdict", "leakage", "scores", "against", "pictures", "classes", "confusion", "calibration", "baselines"),
    *("cost", "training", "again"),
)


def maps(size: int = 120, seed: int = 0, right: float = 0.8):
    """A reference of three of four classes, and a map that is mostly right and has a hole."""
    generator = np.random.default_rng(seed)
    reference = (np.add.outer(np.arange(size), np.arange(size)) // 17 % 3).astype(np.uint8)
    mapped = np.where(generator.random((size, size)) < right, reference, generator.integers(0, 3, (size, size))).astype(
        np.uint8
    )
    reference[:20, :20] = 255
    mapped[60:64, 60:70] = 255
    return reference, mapped


def counted(reference, mapped) -> np.ndarray:
    """Counts (1, 16, K, K + 1) of blocks of 30 px."""
    places = [(slice(r, r + 30), slice(c, c + 30)) for r in range(0, 120, 30) for c in range(0, 120, 30)]
    counts = np.stack([confusion(reference[b], mapped[b], classes=4) for b in places])
    return join(counts, np.stack([unmapped(reference[b], mapped[b], classes=4) for b in places]))[None]


def scored(counts):
    total = counts.sum(axis=(0, 1))
    return score(total[:, :-1], unmapped=total[:, -1])


def bootstrap(counts):
    return mean_bootstrap(counts, generator=np.random.default_rng(0), resamples=1000)


def compared(mine, theirs) -> Comparison:
    return compare(mine, theirs, generator=np.random.default_rng(0), resamples=1000)


COST = Cost(
    parameters=8_640_000,
    macs=1.83e9,
    window_px=224,
    images_per_s=26.94,
    training_minutes=92.4,
    peak_memory_bytes=3 * 2**30,
    device=f"CPU {NASTY}",
)


def peer(mine, theirs, *, name: str = f"other {NASTY}") -> Peer:
    found = compared(mine, theirs)
    return Peer(
        name=name,
        model=f"model {NASTY}",
        scores=scored(theirs),
        intervals=bootstrap(theirs).intervals,
        cost=dataclasses.replace(COST, images_per_s=12.5),
        comparison=found,
        verdict=verdict(found, other=name),
        leaks=True,
    )


@pytest.fixture(scope="module")
def report() -> Report:
    reference, mapped = maps()
    classes = Classes.named(NAMES)
    counts, worse = counted(reference, mapped), counted(*maps(right=0.6))
    scores, found = scored(counts), bootstrap(counts)
    values = np.random.default_rng(1).integers(0, 3000, (3, 120, 120)).astype(np.uint16)
    rows = [{"step": 1, "loss": 2, "miou": 0.25}, {"step": 2, "loss": 1, "miou": 0.5}]
    rival = compared(counts, worse)
    return Report(
        title=f"Accuracy {NASTY}",
        about=(("Model", f"tiny {NASTY}"),),
        date="2026-05-04",
        verdict=(accuracy_sentence(scores, found.intervals, seeds=1), rival_sentence({NASTY: rival})),
        classes=classes,
        scores=scores,
        spread=None,
        intervals=found.intervals,
        intervals_note=found.note,
        counts=counts.sum(axis=(0, 1)),
        leaks=False,
        leakage=f"Nothing shared {NASTY}.",
        baselines=(Baseline(name=f"Forest {NASTY}", explanation=f"Sees {NASTY}", scores=scored(worse), comparison=rival),),
        peers=(peer(counts, worse),),
        seeds=(),
        shown_seed=None,
        cost=COST,
        figures=Figures(
            image=draw_image(values, reference != 255, bands=Bands(names=("red", "green", "blue"))),
            reference=draw_classes(reference, classes=classes),
            map=draw_classes(mapped, classes=classes),
            errors=draw_errors(reference, mapped, classes=classes),
            losses=draw_losses(rows, columns={"loss": "training"}),
            validation=draw_score(rows, column="miou", label="Validation mIoU"),
        ),
        facts=(("Seed", NASTY),),
        recipe=f"task: segmentation  # {NASTY}\n",
        versions=((f"torch {NASTY}", NASTY),),
        commands=(f"terralean train {NASTY}",),
        citation=(f"Somebody {NASTY}",),
        calibration=confidence(),
    )


def confidence() -> CalibrationSection:
    """Of pixels drawn at random, in 40 blocks, at a temperature."""
    rng = np.random.default_rng(0)
    probabilities, labels, blocks = rng.dirichlet(np.full(4, 0.3), 4000).T, rng.integers(0, 4, 4000), np.arange(4000) // 100
    now, before = (sums(p, labels, blocks, count=40) for p in (probabilities, without(probabilities, temperature=1.4)))
    found = calibrated([Reliability(now=now, before=before)], temperatures=[1.4], not_calibrated="")
    return calibration_page.section(found, what="pixels", sentence=f"Off by 3 % {NASTY}.", note=f"Note {NASTY}.")


def with_seeds(report: Report) -> Report:
    """The same page of three trainings."""
    counts = np.concatenate([counted(*maps(seed=seed)) for seed in range(3)])
    each = [scored(counts[i : i + 1]) for i in range(3)]
    found = bootstrap(counts)
    seeds = tuple(
        SeedScores(seed=10 + i, scores=one, intervals=bootstrap(counts[i : i + 1]).intervals, training_minutes=4.0)
        for i, one in enumerate(each)
    )
    return dataclasses.replace(
        report,
        scores=mean(each),
        spread=spread(each),
        intervals=found.intervals,
        intervals_note=found.note,
        counts=counts.sum(axis=(0, 1)),
        seeds=seeds,
        shown_seed=11,
    )


def with_tokens(report: Report) -> Report:
    """The same page of a run that takes tokens out, with noise."""
    drawn = np.random.default_rng(0).beta(3, 6, (2, 60))
    cost = TokenCost(
        operations=tuple((1e9 * (0.4 + drawn[1])).astype(int).tolist()),
        macs=(1,) * 60,
        left=(Left(layer=6, shares=tuple((drawn[0] ** 0.5).tolist())), Left(layer=8, shares=tuple(drawn[1].tolist()))),
        dense_operations=1_400_000_000,
        dense_macs=1,
        complete=False,
    )
    runs = [Costed(name="This run", method="matp", cost=cost, windows_per_s=20.0)]
    runs += [Costed(name=f"other {NASTY}", method=f"none {NASTY}", cost=None, windows_per_s=10.0)]
    scores = {"miou": 0.5, "oa": 0.6, "mf1": 0.7, "change": ""}
    rows = [{"run": run.name, "pixels": 0, **scores, **cells(run.cost)} for run in runs]
    noise = NoiseTable(mode="uniform", range="0 to 255", rows=tuple(rows), reduced=True)
    return dataclasses.replace(report, tokens=section(runs), noise=noise)


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


def shown(report: Report) -> str:
    """The text of the page as a reader sees it, without styles and pictures."""
    text = re.sub(r"<style>.*?</style>", "", render(report), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()).replace(SPACE, " ")


def test_the_page_is_one_well_formed_document_that_loads_nothing(report):
    for version in (report, with_seeds(report), with_tokens(report)):
        text = render(version)
        page = Page(text)
        assert not page.open
        assert not {"script", "iframe", "object", "base", "form"} & set(page.tags)
        assert not re.search(r"https?://|@import|url\(", text)
        loaded = [value for _, name, value in page.attributes if name in ("src", "srcset", "href")]
        assert len(loaded) == 1 + 4  # the empty icon and four pictures
        assert all(value.startswith("data:") for value in loaded)
        assert "default-src 'none'" in text


def test_every_section_is_there_in_the_order_of_the_reader(report):
    text = render(report)
    places = [text.index(f'id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    assert 'id="seeds"' not in text
    several = render(with_seeds(report))
    assert several.index('id="against"') < several.index('id="seeds"') < several.index('id="pictures"')
    assert 'id="tokens"' not in text
    reduced = render(with_tokens(report))
    assert (
        reduced.index('id="baselines"')
        < reduced.index('id="tokens"')
        < reduced.index('id="noise"')
        < reduced.index('id="cost"')
    )


def test_nothing_a_user_names_becomes_markup(report):
    text = render(report)
    assert "<b>" not in re.sub(r'<div class="range"><b>[^<]*</b>', "", text)
    assert "<b>" not in re.sub(r'<div class="range"><b>[^<]*</b>', "", render(with_tokens(report)))
    assert text.count(html.escape(NASTY).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")) >= 25


def test_the_page_has_a_light_and_a_dark_dress_and_one_for_paper(report):
    text = render(report)
    dark = re.search(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", text, re.DOTALL).group(1)
    light = re.search(r":root \{(.*?)\}", text, re.DOTALL).group(1)
    names = [set(re.findall(r"(--[a-z-]+):", part)) for part in (light, dark)]
    assert names[0] == names[1]
    assert set(re.findall(r"var\((--[a-z-]+)\)", text)) <= names[0] | {"--hue", "--share"}
    assert "@media print" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_of_the_page_can_be_read_on_its_ground(report, scheme):
    """Contrast after WCAG 2: 4.5 at least for text; in the matrix on the deepest cell."""
    parts = re.findall(r":root \{(.*?)\}", render(report), re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6}|\d+%)", parts[0] if scheme == "light" else parts[1]))

    def rgb(name: str) -> np.ndarray:
        return np.array([int(colours[name][i : i + 2], 16) for i in (1, 3, 5)]) / 255

    def contrast(one: np.ndarray, other: np.ndarray) -> float:
        linear = [
            np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722) for c in (one, other)
        ]
        return (max(linear) + 0.05) / (min(linear) + 0.05)

    for ink in ("ink", "quiet"):
        for ground in ("page", "card", "soft"):
            assert contrast(rgb(ink), rgb(ground)) >= 4.5
    for name in ("good", "bad", "unsure"):
        assert contrast(rgb(name), rgb(f"{name}-soft")) >= 4.5
        assert contrast(rgb("ink"), rgb(f"{name}-soft")) >= 4.5
    deep = float(colours["deep"].rstrip("%")) / 100
    for hue in ("right", "wrong"):
        assert contrast(rgb("ink"), deep * rgb(hue) + (1 - deep) * rgb("card")) >= 4.5


def test_the_verdict_comes_first_and_its_interval_is_set_apart(report):
    text = render(report)
    first = re.search(r'<p class="lead">(.*?)</p>', text).group(1).replace(SPACE, " ")
    share, known = 100 * report.scores.oa, report.intervals.oa
    assert first == (
        f"The map is right for {share:.1f} % of the labelled test pixels "
        f"<span>(95 % interval {100 * known.low:.1f} to {100 * known.high:.1f} %).</span>"
    )


def test_the_page_shows_the_scores_with_their_intervals(report):
    text = shown(report)
    assert percent(report.scores.oa).replace(SPACE, " ") in text
    low, high = 100 * report.intervals.miou.low, 100 * report.intervals.miou.high
    assert f"{low:.1f} to {high:.1f} %" in text
    assert f"{report.scores.kappa:.3f}" in text
    assert report.intervals_note in text


def test_tracks_put_scores_intervals_seeds_and_the_best_simple_method_where_they_are(report):
    changed = with_seeds(report)
    row = re.search(r'Mean IoU<span>.*?<div class="track"(.*?)</div>', render(changed), re.DOTALL).group(1)
    places = {
        kind: [float(x) for x in re.findall(rf'class="{kind}" style="left:([\d.]+)%', row)]
        for kind in ("mark", "band", "dot", "rival")
    }
    assert places["mark"] == pytest.approx([100 * changed.scores.miou], abs=0.01)
    assert places["band"] == pytest.approx([100 * changed.intervals.miou.low], abs=0.01)
    assert places["dot"] == pytest.approx([100 * seed.scores.miou for seed in changed.seeds], abs=0.01)
    assert places["rival"] == pytest.approx([100 * report.baselines[0].scores.miou], abs=0.01)


def test_another_run_stands_beside_with_its_difference_and_its_cost(report):
    text, other = shown(report), report.peers[0]
    found = other.comparison.miou
    assert other.verdict in text
    assert other.verdict.startswith("Ahead of other")
    value, low, high = (f"{100 * x:.1f}" for x in (found.value, found.interval.low, found.interval.high))
    assert f"Mean IoU +{value} {low} to {high}" in text
    assert "8.64 M 1.83 224 px 12.5 1 h 32 min" in text
    assert "overlap, so its scores are too good" in text
    assert "several seeds show that" in text


def test_the_axis_of_differences_is_the_same_for_all_and_holds_them(report):
    counts, near = counted(*maps()), counted(*maps(seed=1))
    text = render(dataclasses.replace(report, peers=(*report.peers, peer(counts, near, name="near"))))
    ends = [int(end) for end in re.findall(r"this run better: \+(\d+)", text)]
    assert ends[0] == ends[1]
    shown_ones = [report.peers[0].comparison.overall[name].interval for name in ("miou", "oa", "mf1")]
    assert ends[0] >= 100 * max(abs(end) for known in shown_ones for end in (known.low, known.high)) > ends[0] / 2.5
    marks = re.findall(r'<div class="difference">.*?class="mark" style="left:([\d.]+)%', text, re.DOTALL)
    assert float(marks[0]) == pytest.approx(50 + 50 * 100 * report.peers[0].comparison.miou.value / ends[0], abs=0.01)


def test_speeds_of_other_devices_are_not_compared(report):
    other = dataclasses.replace(report.peers[0], cost=dataclasses.replace(COST, device="GPU"))
    assert "measured on different devices" in shown(dataclasses.replace(report, peers=(other,)))
    assert "measured on different devices" not in shown(report)


def test_seeds_have_a_row_each_and_a_mean_with_its_spread(report):
    changed = with_seeds(report)
    text = shown(changed)
    for seed in changed.seeds:
        low, high = (f"{100 * end:.1f}" for end in (seed.intervals.miou.low, seed.intervals.miou.high))
        assert f"{seed.seed} {100 * seed.scores.miou:.1f} {low} to {high}" in text
    assert f"± {100 * changed.spread.miou:.1f} between seeds" in text
    assert f"Mean ± standard deviation {100 * changed.scores.miou:.1f} ± {100 * changed.spread.miou:.1f}" in text
    assert "The map of seed 11, whose mean IoU is nearest to the mean of all." in text
    assert "Runs are paired by seed" in text


def test_a_class_that_nobody_holds_is_named_and_shown_as_a_dash(report):
    text = render(report)
    assert "left out of the means: vineyards." in text
    row = re.search(r"<span>vineyards</span></span></th>.*?</tr>", text).group()
    assert row.count("<td>–</td>") == 4  # noqa: RUF001 - the dash of the page
    assert "nan" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text).lower()


def test_a_class_that_only_the_map_holds_is_named(report):
    matrix = np.diag([5, 5, 5, 0])
    matrix[0, 3] = 1
    changed = dataclasses.replace(report, scores=score(matrix, unmapped=np.zeros(4, np.int64)))
    assert "Mapped but not in the reference, so IoU and F1 are 0 and count in the means: vineyards." in render(changed)


def test_pixels_without_a_class_are_counted_on_the_page(report):
    text = shown(report)
    assert "40 labelled pixels (0.29 %) have no class in the map; each counts as an error." in text
    assert "labelled, but no class in the map" in text


def test_the_matrix_holds_percent_of_the_row_and_counts(report):
    counts = np.zeros((4, 5), int)
    counts[0] = (1997, 3, 0, 0, 0)
    counts[1] = (250, 500, 0, 0, 250)
    text = render(dataclasses.replace(report, counts=counts))
    rows = re.findall(r"<tr><th scope=\"row\">[^<]*</th>((?:<td class=\"(?:right|wrong|none)\".*?</td>)+)</tr>", text)
    cells = [
        re.findall(r'<td class="(\w+)"(?: style="--share:([\d.]+)")?>([^<]*)(?:<small>([^<]*)</small>)?</td>', row)
        for row in rows
    ]
    assert cells[0][:3] == [("right", "0.999", "100", "2.0k"), ("wrong", "0.002", "&lt;1", "3"), ("none", "", "", "")]
    assert cells[1] == [
        *(("wrong", "0.25", "25", "250"), ("right", "0.5", "50", "500")),
        *(("none", "", "", ""), ("none", "", "", ""), ("wrong", "0.25", "25", "250")),
    ]
    assert ">no class<" in text
    assert ">no class<" not in render(dataclasses.replace(report, counts=np.diag([5, 4, 3, 0]) @ np.eye(4, 5, dtype=int)))


def test_the_largest_confusions_are_listed_in_order(report):
    counts = np.zeros((4, 5), int)
    counts[2] = (30, 0, 60, 10, 0)
    counts[3] = (0, 0, 20, 0, 180)
    text = shown(dataclasses.replace(report, counts=counts))
    assert (
        "Largest confusions vineyards taken for no class 90 % of vineyards, 180 pixels "
        f"water taken for {NAMES[0]} 30 % of water, 30 pixels vineyards taken for water 10 % of vineyards, 20 pixels "
        "water taken for vineyards 10 % of water, 10 pixels"
    ) in text
    assert "None: no labelled pixel is wrong." in shown(dataclasses.replace(report, counts=np.eye(4, 5, dtype=int)))


def test_many_classes_have_a_picture_of_the_matrix_instead_of_numbers(report):
    classes = Classes.named([f"class {i}" for i in range(60)])
    counts = np.eye(60, 61, dtype=np.int64) * 7
    changed = dataclasses.replace(
        report,
        classes=classes,
        scores=score(counts[:, :-1], unmapped=counts[:, -1]),
        intervals=None,
        counts=counts,
        baselines=(),
        peers=(),
        figures=dataclasses.replace(report.figures, matrix=draw_matrix(counts)),
    )
    text = render(changed)
    assert 'class="card matrix' not in text
    assert "Confusion matrix of 60 classes" in text


def test_the_leakage_verdict_has_three_faces_told_by_sign_and_words(report):
    faces = {False: ("✓", "Training and test are kept apart"), True: ("!", "Training and test overlap")}
    for leaks, (sign, words) in (faces | {None: ("?", "It is not known whether")}).items():
        text = shown(dataclasses.replace(report, leaks=leaks))
        assert f"{sign} {words}" in text


def test_costs_are_in_units_a_person_reads(report):
    text = shown(report)
    for words in (
        "8.64 million",
        "1.83 GMACs",
        "26.9 windows/s",
        "1 h 32 min",
        "3.00 GiB",
        "where papers count two, halve theirs",
    ):
        assert words in text
    forest = dataclasses.replace(report, cost=Cost(parameters=0, nodes=31_770), peers=())
    assert "Tree nodes 31 770" in shown(forest)
    assert "Parameters" not in shown(forest)
    assert "Multiply-adds" not in shown(forest)
    bare = shown(dataclasses.replace(report, cost=Cost(parameters=1200), peers=()))
    assert "1 200" in bare
    assert "Peak memory" not in bare


def test_a_page_without_figures_baselines_intervals_and_peers_still_stands(report):
    bare = dataclasses.replace(
        report, figures=Figures(), baselines=(), peers=(), intervals=None, intervals_note="No intervals: too few.", commands=()
    )
    text = render(bare)
    assert not Page(text).open
    assert "No intervals: too few." in text
    assert "no interval<" in text
    for name in ("baselines", "training", "against", "seeds"):
        assert f'id="{name}"' not in text


def test_the_same_report_gives_the_same_page_far_below_three_megabytes(report):
    text = render(report)
    assert text == render(report)
    assert len(text.encode()) < 300_000


def test_a_page_that_is_too_large_names_the_figure(report):
    heavy = dataclasses.replace(report.figures, image=Picture(png=b"x" * 2_400_000))
    with pytest.raises(SizeError, match=r"at most 3: the figure 'image' alone has 2\.4 MB, draw it smaller"):
        render(dataclasses.replace(report, figures=heavy))


def test_the_sentences_of_the_verdict():
    own = score(np.array([[90, 10], [20, 80]]), unmapped=np.zeros(2, np.int64))
    told = accuracy_sentence(own, None, seeds=1), accuracy_sentence(own, None, seeds=3), weakness_sentence(own, ("a", "b"))
    assert told == (
        f"The map is right for 85.0{SPACE}% of the labelled test pixels.",
        f"Over 3 seeds the map is right for 85.0{SPACE}% of the labelled test pixels.",
        f"Mean IoU is 73.9{SPACE}%; the weakest class is b (IoU 72.7{SPACE}%).",
    )
    assert weakness_sentence(score(np.array([[9, 0], [0, 0]]), unmapped=np.zeros(2, np.int64)), ("a", "b")) == ""


def test_the_verdict_names_the_best_simple_method_and_admits_where_it_is_better():
    good, fair, poor = (counted(*maps(right=right)) for right in (0.9, 0.7, 0.3))
    told = rival_sentence({"Guess": compared(fair, poor), "Forest": compared(fair, good)})
    assert told.startswith("Behind the best simple method (forest) by ")
    assert told.endswith("It is the better choice here.")
    assert rival_sentence({"Guess": compared(fair, poor)}).startswith("Ahead of the best simple method (guess) by ")
    assert rival_sentence({}) == ""


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.5, f"50.0{SPACE}%"), (1.0, f"100.0{SPACE}%"), (0.9999, f"99.9{SPACE}%"), (math.nan, "–")],  # noqa: RUF001
)
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (1234, "1.2k"), (123456, "123k"), (7_650_000, "7.7M")])
def test_short_counts(count, text):
    assert short_count(count) == text


def test_a_run_goes_by_the_shortest_name_that_tells_it_from_the_others():
    runs = [Path(path) for path in ("a/unet", "b/unet", "b/swin", "c/seed0", "d/seed0", ".")]
    names = [short_name(run, among=runs) for run in runs]
    assert names == ["a/unet", "b/unet", "swin", "c/seed0", "d/seed0", "."]
