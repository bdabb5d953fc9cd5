"""The sections of a report by name, in the order in which they are read: each a function of a study."""

from collections.abc import Callable

from ..parts import Section
from ..study import Study
from .beside_published import published
from .fisher_curves import fisher_curves
from .measured import measured
from .prediction import prediction
from .targets import targets
from .transfer import transfer
from .unfreezing import unfreezing

SECTIONS: dict[str, Callable[[Study], Section]] = {
    "prediction": prediction,
    "transfer": transfer,
    "targets": targets,
    "fisher": fisher_curves,
    "unfreezing": unfreezing,
    "published": published,
    "measured": measured,
}
DRAWN: dict[str, tuple[str, ...]] = {
    "prediction": ("forest", "scatter-early-area", "scatter-peak", "scatter-depth-centroid"),
    "transfer": ("relative", "languages"),
    "fisher": ("trace", "validation", "blocks-map", "blocks-end"),
    "unfreezing": ("order", "top-down"),
}
"""Section -> the figures that it draws where the runs allow it."""
