"""The one way from raw band values to a task's answer. `load` gives a Predictor."""

from terralean.predict.predictor import Predictor, load

__all__ = ["Predictor", "load"]
