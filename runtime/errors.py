"""The package's own errors: each says what was wrong, where, and what to do about it."""


class GarError(Exception):
    """Base of every error that gar-edge raises on purpose. Its text is one line meant for the user."""


class GarImageError(GarError):
    """The picture or video cannot be read, is unsafe to decode, or has an unusable shape or dtype."""


class GarMaskError(GarError):
    """A region's mask cannot be read, is empty, or is not a mask."""


class GarPromptError(GarError):
    """The question, its regions and the model's limits do not fit together."""


class GarBundleError(GarError):
    """A bundle is missing, incomplete, altered, or of a schema this version does not know."""


class GarBusyError(GarError):
    """Too many requests wait already."""


class GarBackendError(GarError):
    """An inference engine is not installed, or refused a graph."""


class GarCheckpointError(GarError):
    """A checkpoint's files, config or tensors are not those of a GAR model."""


class GarHubError(GarError):
    """The model hub cannot be reached, refuses, or does not hold what was asked for."""


class GarExportError(GarError):
    """Writing a bundle failed; nothing was left behind."""


class GarOptionError(GarExportError):
    """An option's value does not fit the checkpoint that is exported."""


class GarValidationError(GarExportError):
    """The graphs were written but do not compute what the torch model computes; `report` has every comparison."""

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class GarCalibrationError(GarExportError):
    """Calibration samples are missing or unusable, or the model's activations are; nothing was left behind."""
