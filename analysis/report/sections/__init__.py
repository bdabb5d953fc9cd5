"""The sections of a report, in the order in which they are read: each a function of a study."""

from collections.abc import Callable

from ..parts import Section
from ..study import Study
from .beside_published import published
from .definitions import definitions
from .fisher_curves import fisher_curves
from .measured import measured
from .prediction import prediction
from .transfer import transfer
from .unfreezing import unfreezing

SECTIONS: tuple[Callable[[Study], Section], ...] = (
    measured,
    fisher_curves,
    unfreezing,
    transfer,
    prediction,
    published,
    definitions,
)
