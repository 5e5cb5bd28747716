"""A scene's blended scores, strip by strip: for whoever wants the scores themselves and no map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from terralean.mapping.blend import Strip, blend, predict_pixels
from terralean.mapping.crew import Crew, answered
from terralean.mapping.plan import Plan
from terralean.mapping.reading import Readable
from terralean.mapping.stages import Stages
from terralean.predict import Predictor

__all__ = ["Readable", "Strip", "strips"]


def strips(predictor: Predictor, scene: Readable, plan: Plan, *, batch: int) -> Iterator[Strip]:
    """Strips that together cover the scene once. Memory does not grow with its height."""
    with Stages() as stages:
        predict = partial(predict_pixels, predictor, plan)
        answers = answered(stages, scene, plan, predict, crew=Crew(batch=batch), first_row=plan.rows[0])
        for strip in blend(answers, plan, classes=len(predictor.card.classes)):
            yield replace(strip, probabilities=strip.probabilities.copy(), valid=strip.valid.copy())
