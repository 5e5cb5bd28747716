"""A training run from recipe and data to a checkpoint with its card. The same call on the same folder goes on."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

import terralean
from terralean.adapt.bands import kinship
from terralean.cost.macs import count_macs_at, parameters
from terralean.data.oriented.samples import ObjectSamples
from terralean.data.samples import Samples
from terralean.data.scene_reading import Pictures
from terralean.models import check_sizes, create
from terralean.predict.predictor import Predictor
from terralean.tokens import Reduction
from terralean.train import adaptation
from terralean.train.alike import seen, settings
from terralean.train.callbacks import (
    EndAtOnce,
    KeepBest,
    LastState,
    MetricsLog,
    Progress,
    Tell,
    check_finite,
    read_metrics,
)
from terralean.train.change_config import ChangeExperiment, VectorConfig
from terralean.train.change_material import bands_of_one
from terralean.train.change_vector import fit_vector, validate_vector
from terralean.train.config import Experiment, ForestConfig
from terralean.train.course import Course, Judged
from terralean.train.experiments import AnyExperiment
from terralean.train.folder import LAST, STATE, check_same_data, data_changed, is_done, working
from terralean.train.forest import grow
from terralean.train.group import joined
from terralean.train.kinds import KINDS, Kind, Use
from terralean.train.loaders import Loaders
from terralean.train.material import Material
from terralean.train.norm import synchronise
from terralean.train.processes import Processes, check_count, cluster, devices, find_processes, share_of_batch, strategy
from terralean.train.schedule import optimiser
from terralean.train.spectral_config import SpectralExperiment
from terralean.train.spectral_start import check_start_bands
from terralean.train.spectral_svm import fit_to_pixels, validate
from terralean.train.svm_config import SVMConfig
from terralean.train.temperature import calibrate
from terralean.weights.card import CALIBRATION, OF_A_FOREST, Card, Training, read_card, write_card
from terralean.weights.card import NAME as CARD
from terralean.weights.checkpoint import NAME as WEIGHTS
from terralean.weights.checkpoint import load_exactly, read_tensors, save_weights
from terralean.weights.pretrained import load_pretrained

log = logging.getLogger(__name__)

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """How a training run ended."""

    run: str
    steps: int
    length: str  # the same in words; a random forest has trees
    minutes: float
    score: str  # the validation score that chose the weights
    validation: float | None  # its best value; None without a validation split
    split: str
    leakage: str
    already_done: bool = False


def run(
    experiment: AnyExperiment,
    *,
    data: Path,
    out: Path,
    device: str | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> RunResult:
    """Train on a folder of data in the folder `out`, or go on there, or say that it is done.

    Under torchrun or srun all processes train one model together, and each returns the same.
    Raises RunError where `out` holds something else: another recipe (the difference is shown), other data, other files.
    """
    return _run(
        experiment, lambda: KINDS[experiment.task].gather(experiment, data), data=data, out=out, device=device, tell=tell
    )


def run_samples(
    experiment: AnyExperiment,
    *,
    train: Samples | Pictures | ObjectSamples,
    validation: Samples | Pictures | ObjectSamples | None,
    out: Path,
    device: str | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> RunResult:
    """`run` on datasets that yield dictionaries, torchgeo's for instance, of `image` and `mask`, `label`, or `bbox` and
    `labels`.

    They are made ready by from_samples of data.samples, from_scene_samples of data.scene_samples and from_object_samples of
    data.oriented.samples. How they are split is theirs: leakage is not checked, and the card says so.
    """
    gather = KINDS[experiment.task].gather_samples
    return _run(experiment, lambda: gather(experiment, train, validation), data=None, out=out, device=device, tell=tell)


def _run(
    experiment: AnyExperiment,
    gather: Callable[[], Material],
    *,
    data: Path | None,
    out: Path,
    device: str | None,
    tell: Callable[[Progress], None],
) -> RunResult:
    processes = find_processes(device, None, environment=os.environ, gpus=torch.cuda.device_count())
    check_count(experiment, processes.count)
    if experiment.train is not None:
        check_sizes(experiment.model.name, experiment.model.sizes)
    kind = KINDS[experiment.task]
    with joined(processes) as group, ExitStack() as held:
        group.compare(settings(experiment))
        if group.first(lambda: is_done(out, experiment, data=data)):
            return group.first(lambda: _done(experiment, gather, data=data, out=out, processes=processes))
        material = group.every(gather)
        _say(material)
        group.every(lambda: kind.use(experiment, material))  # so that no model is trained which could not be used
        if isinstance(experiment, Experiment) and experiment.forest is not None:
            return _grow(experiment, experiment.forest, material, out=out, tell=tell)
        if isinstance(experiment, SpectralExperiment) and experiment.svm is not None:
            return _fit_machine(experiment, experiment.svm, material, out=out, processes=processes)
        if isinstance(experiment, ChangeExperiment) and experiment.vector is not None:
            return _fit_vector(experiment, experiment.vector, material, out=out, processes=processes)
        group.compare(seen(material, state=out / LAST / STATE))
        course = kind.course(experiment, material)
        module = group.every(lambda: _module(experiment, material, course, processes))
        group.first(lambda: held.enter_context(working(out, experiment, material)))
        with group.telling():
            more = _averaging(course) if experiment.adapt is None else adaptation.callbacks(experiment.adapt, course)
            best = _fit(kind, course, module, material, out=out, processes=processes, tell=tell, more=more)
        return group.first(lambda: _finish(experiment, module, material, out=out, best=best, processes=processes))


def _grow(
    experiment: Experiment,
    config: ForestConfig,
    material: Material,
    *,
    out: Path,
    tell: Callable[[Progress], None],
) -> RunResult:
    """Fit a random forest. It takes a minute, so one that was killed begins anew."""
    with working(out, experiment, material):
        grown = grow(config, material, seed=experiment.seed, tell=tell)
        save_weights(grown.model.state_dict(), out / WEIGHTS)
        ended = _Ended(
            steps=config.trees, seconds=grown.seconds, best=grown.miou, step=config.trees, sizes=grown.sizes, cost=grown.cost
        )
        card = _card(experiment, material, ended)
        write_card(replace(card, metrics={**card.metrics, CALIBRATION: {"not_fitted": OF_A_FOREST}}), out)
    return _result(out, card, already_done=False)


def _fit_machine(
    experiment: SpectralExperiment,
    config: SVMConfig,
    material: Material,
    *,
    out: Path,
    processes: Processes,
) -> RunResult:
    """Fit a support vector machine. One that was killed begins anew."""
    with working(out, experiment, material):
        fitted = fit_to_pixels(config, material, seed=experiment.seed)
        chosen = "" if fitted.accuracy is None else f", OA {fitted.accuracy:.3f} on training pixels left out"
        log.info("support vector machine: cost %g, gamma %.3g%s", fitted.cost, fitted.gamma, chosen)
        save_weights(fitted.model.state_dict(), out / WEIGHTS)
        count = len(fitted.model.support)
        cost = {"parameters": 0, "macs_layers": 0, "macs_attention": 0, "support_vectors": count}
        ended = _Ended(steps=count, seconds=fitted.seconds, best=None, step=count, sizes=fitted.sizes, cost=cost)
        card = _card(experiment, material, ended)
        predictor = Predictor(fitted.model, card, device=processes.device, precision="fp32")
        temperature, told = calibrate(predictor, material, batch=len(material.class_counts), seed=experiment.seed)
        card = replace(card, temperature=temperature, metrics={CALIBRATION: told})
        scores = validate(Predictor(fitted.model, card, device=processes.device, precision="fp32"), material)
        write_card(replace(card, metrics={**card.metrics, **({"validation": scores} if scores else {})}), out)
    return _result(out, read_card(out), already_done=False)


def _fit_vector(
    experiment: ChangeExperiment,
    config: VectorConfig,
    material: Material,
    *,
    out: Path,
    processes: Processes,
) -> RunResult:
    """Fit change vector analysis. It takes seconds, so one that was killed begins anew."""
    with working(out, experiment, material):
        fitted = fit_vector(config, material)
        save_weights(fitted.model.state_dict(), out / WEIGHTS)
        cost = {"parameters": 0, "macs_layers": 0, "macs_attention": 0}
        count = fitted.pixels
        ended = _Ended(steps=count, seconds=fitted.seconds, best=None, step=count, sizes=experiment.model.sizes, cost=cost)
        predictor = Predictor(fitted.model, _card(experiment, material, ended), device=processes.device, precision="fp32")
        temperature, told = calibrate(predictor, material, batch=1, seed=experiment.seed)
        scores = {} if material.validation is None else {"validation": validate_vector(predictor, material)}
        write_card(replace(predictor.card, temperature=temperature, metrics={**scores, CALIBRATION: told}), out)
    return _result(out, read_card(out), already_done=False)


def _say(material: Material) -> None:
    log.info("split: %s", material.split)
    log.log(logging.WARNING if "LEAKS" in material.leakage else logging.INFO, "leakage: %s", material.leakage)


def _finish(
    experiment: AnyExperiment,
    module: lightning.LightningModule,
    material: Material,
    *,
    out: Path,
    best: KeepBest,
    processes: Processes,
) -> RunResult:
    model = cast("Judged", module).model
    if best.best is None:  # nothing to choose by: the weights of the last step, averaged if asked
        save_weights(model.state_dict(), out / WEIGHTS)
    check_finite(out / WEIGHTS, lr=KINDS[experiment.task].course(experiment, material).lr)
    adapted = None if experiment.adapt is None else adaptation.finish(model, experiment.adapt, out=out)
    rows = read_metrics(out / "metrics.csv")
    ended = _Ended(
        steps=int(rows[-1]["step"]) if rows else 0,
        seconds=float(rows[-1]["seconds"]) if rows else 0.0,
        best=best.best,
        step=best.best_step,
        sizes=experiment.model.sizes,
        cost=_cost(model, experiment, material),
    )
    card = replace(_card(experiment, material, ended), adapted=adapted)
    card = _calibrated(experiment, card, material, out=out, processes=processes)
    write_card(card, out)
    (out / LAST / STATE).unlink()  # three times the weights, and of no use to a finished run
    return _result(out, card, already_done=False)


def _module(experiment: AnyExperiment, material: Material, course: Course, processes: Processes) -> lightning.LightningModule:
    torch.manual_seed(experiment.seed)
    model = _network(experiment, material, reduce=_reduction(experiment))
    start = experiment.model.weights if experiment.adapt is None else experiment.adapt.start
    if start is not None:
        bands = bands_of_one(material.bands) if isinstance(experiment, ChangeExperiment) else material.bands
        if isinstance(experiment, SpectralExperiment):
            check_start_bands(model, experiment.adapt, start=Path(start), bands=bands)
        told = load_pretrained(model, Path(start), bands=bands, averaged=experiment.model.averaged)
        log.info("starting from %s", told)
    if start is None or _of_other_bands(Path(start), material):
        _start_from_pixels(model, material)
    if experiment.adapt is not None:
        adaptation.begin(model, experiment.adapt)
    if processes.count > 1:
        model = synchronise(model, device=processes.device)
    optimiser(model, course)  # so that a setting which does not fit the model leaves no run behind
    return KINDS[experiment.task].module(experiment, material, course, model)


def _start_from_pixels(model: nn.Module, material: Material) -> None:
    """What begins with the principal components of the training pixels does."""
    begin: Callable[[torch.Tensor], None] | None = getattr(model, "start_from", None)
    if material.pixels is not None and begin is not None:
        begin(material.pixels)


def _of_other_bands(start: Path, material: Material) -> bool:
    """Whether a run was trained on bands of which none is known here, so that what it learned of single ones has no meaning."""
    return (start / CARD).is_file() and kinship(read_card(start).bands, material.bands) == "unknown"


def _network(experiment: AnyExperiment, material: Material, *, reduce: Reduction | None) -> nn.Module:
    wanted = experiment.model
    return create(wanted.name, bands=len(material.bands), classes=len(material.classes), reduce=reduce, **wanted.sizes)


def _fit(
    kind: Kind,
    course: Course,
    module: lightning.LightningModule,
    material: Material,
    *,
    out: Path,
    processes: Processes,
    tell: Callable[[Progress], None],
    more: Sequence[Callback],
) -> KeepBest:
    best = KeepBest(out, score=kind.score, patience=course.patience)
    last = out / LAST / STATE
    if last.is_file() and (rows := read_metrics(out / "metrics.csv")):
        log.info("going on after step %s of %d", rows[-1]["step"], course.steps)
    with _quiet():
        trainer = _trainer(course, out=out, processes=processes, best=best, last=last, tell=tell, more=more)
        data = Loaders(material, course, rank=processes.rank, count=processes.count)
        try:
            trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=False)
        except SystemExit as stop:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from stop
    return best


def _averaging(course: Course) -> list[Callback]:
    return [] if course.ema_decay is None else [EMAWeightAveraging(decay=course.ema_decay)]


def _trainer(
    course: Course,
    *,
    out: Path,
    processes: Processes,
    best: KeepBest,
    last: Path,
    tell: Callable[[Progress], None],
    more: Sequence[Callback],
) -> lightning.Trainer:
    told = Tell(tell, course=course, best=best)
    callbacks = [best, *more, MetricsLog(out / "metrics.csv", score=best.score), told, LastState(last), EndAtOnce()]
    return lightning.Trainer(
        accelerator="gpu" if processes.device.type == "cuda" else "cpu",
        devices=devices(processes),
        num_nodes=processes.count // processes.here,
        strategy=strategy(processes),
        plugins=cluster(processes.launcher),
        use_distributed_sampler=False,
        precision=PRECISION[course.precision],  # type: ignore[arg-type]
        max_steps=course.steps,
        accumulate_grad_batches=course.accumulate,
        gradient_clip_val=course.clip_norm,
        callbacks=callbacks,
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ended:
    """What the card says of how it went."""

    steps: int
    seconds: float
    best: float | None  # score on the validation split
    step: int  # of the best
    sizes: dict[str, bool | int | float | str]
    cost: dict[str, int]


def _use(experiment: AnyExperiment, material: Material) -> Use:
    return KINDS[experiment.task].use(experiment, material)


def _card(experiment: AnyExperiment, material: Material, ended: _Ended) -> Card:
    use, score = _use(experiment, material), KINDS[experiment.task].score
    return Card(
        version=terralean.__version__,
        task=experiment.task,
        model=experiment.model.name,
        sizes=ended.sizes,
        reduce=_reduction(experiment),
        shrink=experiment.model.shrink,
        bands=material.bands,
        normalisation=material.normalisation,
        classes=material.classes,
        tile_px=use.tile_px,
        overlap_px=use.overlap_px,
        seen_px=use.seen_px if use.resized else None,
        training=Training(
            data=material.fingerprint,
            images=material.images,
            split=material.split,
            leakage=material.leakage,
            steps=ended.steps,
            minutes=round(ended.seconds / 60, 2),
            seed=experiment.seed,
        ),
        metrics={} if ended.best is None else {"validation": {score.key: round(ended.best, 6), "step": ended.step}},
        cost={**ended.cost, "macs_at_px": use.seen_px if use.resized or use.in_patches else use.tile_px},
    )


def _reduction(experiment: AnyExperiment) -> Reduction | None:
    return experiment.reduce if isinstance(experiment, Experiment) else None


def _cost(model: nn.Module, experiment: AnyExperiment, material: Material) -> dict[str, int]:
    """MACs are those without token reduction: what a method spares depends on the image, and evaluation measures it."""
    dense, side = model, _use(experiment, material).seen_px
    if _reduction(experiment) is not None:
        with torch.device("meta"):
            dense = _network(experiment, material, reduce=None)
    fixed: Callable[[], nn.Module] | None = getattr(dense, "counted", None)
    macs = count_macs_at(dense if fixed is None else fixed(), (1, len(material.bands), side, side))
    return {"parameters": parameters(model), "macs_layers": macs.layers, "macs_attention": macs.attention}


def _calibrated(experiment: AnyExperiment, card: Card, material: Material, *, out: Path, processes: Processes) -> Card:
    """The card with the temperature of the weights that were kept."""
    if why_not := KINDS[experiment.task].not_calibrated:
        return replace(card, metrics={**card.metrics, CALIBRATION: {"not_fitted": why_not}})
    model = _network(experiment, material, reduce=_reduction(experiment))
    load_exactly(model, read_tensors(out / WEIGHTS), source=str(out / WEIGHTS))
    predictor = Predictor(model, card, device=processes.device, precision="fp32")
    batch = share_of_batch(KINDS[experiment.task].course(experiment, material), count=processes.count)
    temperature, told = calibrate(predictor, material, batch=batch, seed=experiment.seed)
    return replace(card, temperature=temperature, metrics={**card.metrics, CALIBRATION: told})


def _done(
    experiment: AnyExperiment, gather: Callable[[], Material], *, data: Path | None, out: Path, processes: Processes
) -> RunResult:
    """What a finished run has; where its confidence was never calibrated, that is done now, without training.

    Raises RunError where files of the data have changed since, and with them what the run learned from.
    """
    card = read_card(out)
    never_tried = CALIBRATION not in card.metrics and experiment.train is not None
    if never_tried or (data is not None and data_changed(out, data)):
        material = gather()
        check_same_data(out, material)
        if never_tried:
            write_card(_calibrated(experiment, card, material, out=out, processes=processes), out)
    log.info("%s is finished; give another --out to train anew", out)
    return _result(out, read_card(out), already_done=True)


def _result(out: Path, card: Card, *, already_done: bool) -> RunResult:
    score = KINDS[card.task].score
    return RunResult(
        run=str(out),
        steps=card.training.steps,
        length=card.length,
        minutes=card.training.minutes,
        score=score.name,
        validation=card.metrics.get("validation", {}).get(score.key),
        split=card.training.split,
        leakage=card.training.leakage,
        already_done=already_done,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice about workers and hardware is not for our users; what matters we say ourselves."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*num_workers.*")
            warnings.filterwarnings("ignore", message="Total length of .* across ranks is zero.*")  # no validation split
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # inside Lightning, with torch 2.15
            warnings.filterwarnings("ignore", message="Found .* in eval mode at the start")  # norms that adapting freezes
            warnings.filterwarnings("ignore", message="Grad strides do not match.*")  # of depthwise kernels, under DDP
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
