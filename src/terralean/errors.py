"""What can go wrong through no fault of the program: one class for each mistake a user can make.

Every message names the file, the value, what was expected and the fix. The command line prints the message and exits with
status 2; from Python, all of them are caught by `except TerraleanError`.
"""


class TerraleanError(Exception):
    """A mistake that the user can mend; the message says how."""


class MissingFile(TerraleanError):
    """A path that is not there."""


class UnreadableScene(TerraleanError):
    """A file that is not an image, or one that breaks while it is read."""


class BandMismatch(TerraleanError):
    """A scene whose bands do not meet the model's contract."""


class GridMismatch(TerraleanError):
    """An image and a mask, or two images, that do not lie on one grid."""


class SwappedDates(TerraleanError):
    """A pair whose first image was taken after its second."""


class LabelError(TerraleanError):
    """Labels with a value, a field or a name that the classes do not have."""


class DatasetError(TerraleanError):
    """A folder or an index that does not make a dataset."""


class EmptySplit(DatasetError):
    """A split without a sample."""


class ConfigError(TerraleanError):
    """A recipe or a `--set` value that cannot be obeyed."""


class UnknownName(ConfigError):
    """A model, task, recipe or reducer that does not exist; the message lists the nearest."""


class WeightsDoNotFit(TerraleanError):
    """A checkpoint whose tensors are not those of the model."""


class RunError(TerraleanError):
    """A run folder that is incomplete, of another format, or of another recipe."""


class Stopped(TerraleanError):
    """What ends a process because another one of the same run met a mistake, and tells it."""


class SizeError(TerraleanError):
    """An image too small or too large for what was asked; the message says what would fit."""


class OutputFailed(TerraleanError):
    """A result that could not be written: a full disk, a read-only folder. Nothing keeps a final name."""


class MissingExtra(TerraleanError):
    """A package that only some need and that is not installed; the message names the extra that brings it."""


class ExportDiffers(TerraleanError):
    """An exported graph whose answers are not those of the network; it was not kept."""


class SomeScenesFailed(TerraleanError):
    """Of many scenes some failed; the others are done. Exit status 1."""


class JobError(TerraleanError):
    """A map that was begun otherwise, or that another process is making."""
