"""What a support vector machine is told. Without scikit-learn, which only fitting needs: recipes are read by every verb."""

from __future__ import annotations

from dataclasses import dataclass

from terralean.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class SVMConfig:
    """What a machine sees of a pixel, and what is tried to find its cost and its kernel."""

    components: int = 0  # principal components in place of bands; 0: bands
    side_px: int = 1  # of the square around a pixel whose means it sees, too; 1: the pixel alone
    costs: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)  # of a training pixel on the wrong side
    gammas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)  # of the kernel, each divided by the number of features
    folds: int = 3  # of training pixels, of which one after the other is left out to compare these

    def __post_init__(self) -> None:
        if self.components < 0:
            raise ConfigError(f"svm.components must be 0 (bands) or more, got {self.components}")
        if self.side_px < 1 or self.side_px % 2 == 0:
            raise ConfigError(f"svm.side_px must be an odd number, got {self.side_px}")
        if not self.costs or not self.gammas or min(*self.costs, *self.gammas) <= 0:
            raise ConfigError("svm.costs and svm.gammas must be above 0, at least one each")
        if self.folds < 2:  # noqa: PLR2004
            raise ConfigError(f"svm.folds must be 2 or more, got {self.folds}")


SPECTRA = SVMConfig()
CONTEXT = SVMConfig(components=15, side_px=7)
