import dataclasses
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from terralean.data.scene_config import SceneDataConfig
from terralean.evaluate.calibration import calibrated
from terralean.evaluate.calibration_page import CalibrationSection, section
from terralean.evaluate.figures import draw_losses, draw_score
from terralean.evaluate.page import SPACE, Cost
from terralean.evaluate.reliability import of_images
from terralean.evaluate.report import Figures
from terralean.evaluate.scene_figures import Told, photograph
from terralean.evaluate.scene_intervals import bootstrap, compare_scenes, verdict
from terralean.evaluate.scene_metrics import Answers, Units, answers, confusion, mean, score, spread
from terralean.evaluate.scene_report import CELL, SceneBaseline, ScenePeer, SceneReport, SceneSeed, render
from terralean.spec import Classes

NASTY = '<b>&"soil"\'</b>'
NAMES = ("forest", NASTY, "HerbaceousVegetation", "river", "lake", "quarry")
SECTIONS = (
    *("verdict", "leakage", "scores", "against", "pictures", "classes", "confusion", "calibration", "baselines"),
    *("cost", "training", "again"),
)
COST = Cost(
    parameters=8_640_000,
    macs=1.83e9,
    window_px=224,
    images_per_s=26.94,
    training_minutes=92.4,
    peak_memory_bytes=3 * 2**30,
    device=f"CPU {NASTY}",
)


def guess(*, classes: int, images: int = 180, lean: float = 2.0, seed: int = 0) -> Answers:
    """Answers that lean towards the true class, which is never the last."""
    rng = np.random.default_rng(seed)
    label = np.arange(images) % (classes - 1)
    logits = rng.normal(size=(images, classes)) + lean * np.eye(classes)[label]
    logits[:, -1] = -50
    return answers(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), label)


def confidence(classes: int, labels: np.ndarray) -> CalibrationSection:
    """Of answers drawn at random, at a temperature."""
    probabilities = np.random.default_rng(0).dirichlet(np.full(classes, 0.3), len(labels))
    sums = of_images(probabilities, labels, temperature=1.4)
    found = calibrated([sums], temperatures=[1.4], not_calibrated="")
    return section(found, what="images", sentence=f"Off by 3 % {NASTY}.", note=f"Note {NASTY}.")


def make(photo, *, names=NAMES, images: int = 180) -> SceneReport:
    """A report on answers drawn at random."""
    classes, n = Classes.named(names), len(names)
    units = Units(name="images", number=np.arange(images), count=images)
    mine, theirs = (guess(classes=n, images=images, lean=lean) for lean in (2.5, 1.0))
    rng = np.random.default_rng(0)
    boots = [bootstrap([one], units=units, classes=n, generator=rng, resamples=1000) for one in (mine, theirs)]
    apart = compare_scenes([mine], [theirs], units=units, classes=n, generator=rng, resamples=1000)
    scores = [score(one, classes=n) for one in (mine, theirs)]
    rows = [{"step": 1, "loss": 2, "top1": 0.25}, {"step": 2, "loss": 1, "top1": 0.5}]
    return SceneReport(
        title=f"Accuracy {NASTY}",
        about=(("Model", f"tiny {NASTY}"),),
        date="2026-05-04",
        verdict=("The model recognises 70.0 % of the test images (95 % interval 60.0 to 80.0 %).", verdict(apart, other=NASTY)),
        classes=classes,
        scores=scores[0],
        spread=None,
        intervals=boots[0].intervals,
        intervals_note=boots[0].note,
        counts=confusion(mine, classes=n),
        leaks=False,
        apart=False,
        leakage=f"Nothing shared {NASTY}.",
        baselines=(SceneBaseline(name=f"Guess {NASTY}", explanation=f"Sees {NASTY}.", scores=scores[1], comparison=apart),),
        peers=(
            ScenePeer(
                name=f"other {NASTY}",
                model=f"model {NASTY}",
                scores=scores[1],
                intervals=boots[1].intervals,
                cost=dataclasses.replace(COST, images_per_s=12.5),
                comparison=apart,
                verdict=verdict(apart, other=f"other {NASTY}"),
                leaks=True,
            ),
        ),
        seeds=(),
        shown_seed=None,
        calibration=confidence(n, mine.label),
        mistakes=(Told(photo=photo, label=NASTY, answer="river", confidence=0.976),),
        right=(Told(photo=photo, label="HerbaceousVegetation", answer="HerbaceousVegetation", confidence=1.0),),
        cost=COST,
        views=1.0,
        views_per_s=30.1,
        figures=Figures(
            losses=draw_losses(rows, columns={"loss": "training"}),
            validation=draw_score(rows, column="top1", label="Validation accuracy"),
        ),
        facts=(("Seed", NASTY),),
        recipe=f"task: classification  # {NASTY}\n",
        versions=((f"torch {NASTY}", NASTY),),
        commands=(f"terralean train {NASTY}",),
        citation=(f"Somebody {NASTY}",),
    )


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3)).astype(np.uint8)).save(path)
    return photograph(str(path), config=SceneDataConfig())


@pytest.fixture(scope="module")
def report(photo) -> SceneReport:
    return make(photo)


@pytest.fixture(scope="module")
def many(photo) -> SceneReport:
    """51 classes, as MillionAID has them."""
    return make(photo, names=[f"class of number {i}" for i in range(51)], images=2000)


def with_seeds(report: SceneReport) -> SceneReport:
    """The same page of three trainings."""
    several = [guess(classes=6, seed=seed) for seed in range(3)]
    units = Units(name="images", number=np.arange(180), count=180)
    each = [score(one, classes=6) for one in several]
    found = bootstrap(several, units=units, classes=6, generator=np.random.default_rng(0), resamples=1000)
    return dataclasses.replace(
        report,
        scores=mean(each),
        spread=spread(each),
        intervals=found.intervals,
        intervals_note=found.note,
        seeds=tuple(SceneSeed(seed=10 + i, scores=one, intervals=None, training_minutes=4.0) for i, one in enumerate(each)),
        shown_seed=11,
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


def shown(report: SceneReport) -> str:
    """The text of the page as a reader sees it, without styles and pictures."""
    text = re.sub(r"<style>.*?</style>", "", render(report), flags=re.DOTALL)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
    return text.replace(SPACE, " ").replace("\N{ZERO WIDTH SPACE}", "")


def test_the_page_is_one_well_formed_document_that_loads_nothing(report, many):
    for version in (report, with_seeds(report), many):
        text = render(version)
        page = Page(text)
        assert not page.open
        assert not {"script", "iframe", "object", "base", "form"} & set(page.tags)
        assert not re.search(r"https?://|@import|url\(", text)
        loaded = [value for _, name, value in page.attributes if name in ("src", "srcset", "href")]
        assert len(loaded) == 1 + 2  # the empty icon and two photographs
        assert all(value.startswith("data:") for value in loaded)
        assert sum(value.startswith("data:image/jpeg;base64,") for value in loaded) == 2


def test_every_section_is_there_in_the_order_of_the_reader(report):
    text = render(report)
    places = [text.index(f'id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    assert 'id="seeds"' not in text
    several = render(with_seeds(report))
    assert several.index('id="against"') < several.index('id="seeds"') < several.index('id="pictures"')


def test_nothing_a_user_names_becomes_markup(report, photo):
    assert "<b>" not in re.sub(r'<div class="range"><b>[^<]*</b>', "", render(report))
    assert shown(report).count(NASTY) >= 20
    names = [f"{NASTY} {i}" for i in range(30)]
    grid = render(make(photo, names=names, images=300))
    assert "<b>" not in re.sub(r'<div class="range"><b>[^<]*</b>', "", grid)


def test_scores_stand_with_their_intervals_and_classes_with_theirs(report):
    text = shown(report)
    for key in ("oa", "top5", "aa", "mf1"):
        known = getattr(report.intervals, key)
        value = f"{100 * getattr(report.scores, key):.1f} % {100 * known.low:.1f} to {100 * known.high:.1f} %"
        assert value in text
    for i, name in enumerate(NAMES[:-1]):
        told = [
            f"{100 * getattr(report.scores, key)[i]:.1f} {100 * getattr(report.intervals, key)[i].low:.1f} to "
            f"{100 * getattr(report.intervals, key)[i].high:.1f}"
            for key in ("f1", "precision", "recall")
        ]
        assert f"{name} {' '.join(told)} 36" in text
    assert "quarry – – – 0" in text  # noqa: RUF001 - the dash of the page
    assert "left out of the means: quarry." in text
    assert "nan" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", render(report)).lower()


def test_five_classes_have_no_share_among_the_five_likeliest(photo):
    text = shown(make(photo, names=NAMES[:5]))
    assert "five likeliest" not in text
    assert "Overall accuracy" in text


def test_mistakes_are_shown_with_what_they_are(report):
    text = shown(report)
    assert f"The surest mistakes river 98 % is {NASTY}" in text
    assert "Right answers, drawn at random HerbaceousVegetation 100 % Class by class" in text
    bare = shown(dataclasses.replace(report, mistakes=(), right=()))
    assert "None: every test image is recognised." in bare
    assert "None: no test image is recognised." in bare


def test_a_name_written_as_one_word_may_break(report):
    assert "Herbaceous\N{ZERO WIDTH SPACE}Vegetation" in render(report)


def test_another_run_stands_beside_with_its_difference_and_its_cost(report):
    text, other = shown(report), report.peers[0]
    found = other.comparison.overall["oa"]
    assert other.verdict in text
    value, low, high = (f"{100 * x:.1f}" for x in (found.value, found.interval.low, found.interval.high))
    assert f"Overall accuracy +{value} {low} to {high}" in text
    counts = other.comparison
    assert f"{counts.only_mine:g} images are right in this run only, {counts.only_theirs:g} in other {NASTY} only." in text
    assert "8.64 M 1.83 224 px 12.5 1 h 32 min" in text
    assert "overlap, so its scores are too good" in text


def test_seeds_have_a_row_each_and_a_mean_with_its_spread(report):
    changed = with_seeds(report)
    text = shown(changed)
    for seed in changed.seeds:
        assert f"{seed.seed} {100 * seed.scores.oa:.1f} {100 * seed.scores.aa:.1f} {100 * seed.scores.mf1:.1f} 4 min" in text
    assert f"± {100 * changed.spread.oa:.1f} between seeds" in text
    assert f"Mean ± standard deviation {100 * changed.scores.oa:.1f} ± {100 * changed.spread.oa:.1f}" in text
    assert "The answers of seed 11, whose overall accuracy is nearest to the mean of all." in text


def test_the_badge_claims_no_more_than_is_known(report):
    assert "No test image is among the training images" in shown(report)
    assert "Training and test are kept apart" in shown(dataclasses.replace(report, apart=True))
    assert "It is not known whether" in shown(dataclasses.replace(report, leaks=None))
    assert "expect lower scores on new ground" in shown(dataclasses.replace(report, leaks=True))


def test_the_matrix_of_few_classes_holds_percent_of_the_row_and_counts(report):
    rows = re.findall(r'<tr><th scope="row">[^<]*</th>((?:<td class="(?:right|wrong|none)".*?</td>)+)</tr>', render(report))
    assert len(rows) == 6
    for i, row in enumerate(rows):
        cells = re.findall(r'<td class="(\w+)"[^>]*>(?:([^<]*)<small>([^<]*)</small>)?</td>', row)
        assert [int(count or 0) for _, _, count in cells] == report.counts[i].tolist()
        for j, (kind, text, count) in enumerate(cells):
            assert kind == ("none" if not count else "right" if i == j else "wrong")
            if count:
                assert text == f"{100 * report.counts[i, j] / report.counts[i].sum():.0f}"


def test_the_matrix_of_many_classes_has_names_at_both_sides_and_each_image_in_a_cell(many):
    text = re.search(r'<div class="card gridded scroll">(.*?)</svg>', render(many), re.DOTALL).group(1)
    for i in range(51):
        assert text.count(f">class of number {i}</text>") == 2
    cells = re.findall(
        r'<g class="(\w+)"><title>class of number (\d+), answer class of number (\d+): ([\d.]+)\N{NARROW NO-BREAK SPACE}%, '
        r'(\d+) images</title><rect x="(\d+)" y="(\d+)"[^>]*--share:([\d.]+)',
        text,
    )
    found = np.zeros((51, 51), int)
    for kind, row, col, share, count, x, y, depth in cells:
        found[int(row), int(col)] = int(count)
        assert kind == ("right" if row == col else "wrong")
        assert float(share) == pytest.approx(100 * int(count) / many.counts[int(row)].sum(), abs=0.05)
        assert (int(x) - int(cells[0][5])) == CELL * (int(col) - int(cells[0][2]))
        assert (int(y) - int(cells[0][6])) == CELL * (int(row) - int(cells[0][1]))
        assert 0.12 <= float(depth) <= 1
    np.testing.assert_array_equal(found, many.counts)


def test_more_classes_than_have_room_for_names_are_a_picture(photo):
    names = [f"c{i}" for i in range(130)]
    text = render(make(photo, names=names, images=600))
    assert 'class="heat"' in text
    assert "gridded scroll" not in text
    assert "Confusion matrix of 130 classes" in text


def test_the_largest_confusions_are_listed(report):
    counts = np.diag([9, 9, 9, 9, 9, 9])
    counts[3, 4] = 18
    text = shown(dataclasses.replace(report, counts=counts))
    assert "river taken for lake 67 % of river, 18 images" in text
    assert "None: every test image is recognised." in shown(dataclasses.replace(report, counts=np.diag([9] * 6)))


def test_confidence_is_drawn_where_it_is(report):
    text = render(report)
    drawn = re.findall(r'class="point" cx="([\d.]+)" cy="([\d.]+)" r="1.7"', text)
    assert [(float(x), float(y)) for x, y in drawn] == [
        (bin["said"], pytest.approx(100 - bin["height"])) for bin in report.calibration.bins
    ]
    rings = re.findall(r'class="was" cx="([\d.]+)" cy="([\d.]+)" r="1.7"', text)
    assert [(float(x), pytest.approx(100 - float(y))) for x, y in rings] == [
        (said, height) for said, height in report.calibration.before
    ]
    for row in report.calibration.numbers:
        assert f"{row['name']} {row['told']} {row['now']} {row['range']}" in shown(report)


def test_without_a_temperature_there_are_no_rings(report):
    alone = dataclasses.replace(report.calibration, before=())
    text = render(dataclasses.replace(report, calibration=alone))
    assert 'class="was"' not in text
    assert "Without<br>temperature" in render(report)
    assert "Without<br>temperature" not in text


def test_cost_says_what_is_read_and_what_the_model_alone_does(report):
    text = shown(report)
    assert "1.83 GMACs For an image of 224 x 224 px." in text
    assert "26.9 images/s Files read and recognised in a second; the model alone judges 30.1 images/s on CPU" in text
    several = shown(dataclasses.replace(report, views=7.25))
    assert "For a view of 224 x 224 px." in several
    assert "recognised by 7.25 views each in a second; the model alone judges 30.1 views/s" in several


def test_a_page_without_baselines_intervals_and_peers_still_stands(report):
    bare = dataclasses.replace(
        report, figures=Figures(), baselines=(), peers=(), intervals=None, intervals_note="No intervals: too few.", commands=()
    )
    text = render(bare)
    assert not Page(text).open
    assert "No intervals: too few." in text
    for name in ("baselines", "training", "against", "seeds"):
        assert f'id="{name}"' not in text


def test_the_same_report_gives_the_same_page(report):
    assert render(report) == render(report)
