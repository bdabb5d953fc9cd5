"""The published results of "FUN with Fisher" (NAACL 2024) as data, with what is known to be doubtful about them.

CAVEATS.md beside this file says where the numbers come from and what was checked.
"""

from .beside import DATASETS, adapter_of, dataset_of, languages_of, method_of, model_of, published_beside
from .tables import TABLES, caveats, read

__all__ = [
    "DATASETS",
    "TABLES",
    "adapter_of",
    "caveats",
    "dataset_of",
    "languages_of",
    "method_of",
    "model_of",
    "published_beside",
    "read",
]
