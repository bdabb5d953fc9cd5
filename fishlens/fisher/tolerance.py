"""How far two computations of one number may be apart, by the precisions that take part in them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """The largest relative difference in each precision, and in a coarser one than those named."""

    by_dtype: Mapping[torch.dtype, float]
    coarse: float

    def of(self, dtypes: Collection[torch.dtype]) -> float:
        """That of the coarsest of `dtypes`."""
        return max(self.by_dtype.get(dtype, self.coarse) for dtype in dtypes)
