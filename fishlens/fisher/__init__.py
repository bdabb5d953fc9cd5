"""What the Fisher information is and how it is computed; knows nothing of training."""

from fishlens.fisher.blocks import Block, find_blocks
from fishlens.fisher.coverage import Coverage, SelfCheck, coverage, self_check, self_checks
from fishlens.fisher.estimate import FisherEstimate, merge
from fishlens.fisher.price import Price, prices
from fishlens.fisher.probe import estimate_fisher
from fishlens.fisher.proof import Plan
from fishlens.fisher.reference import Reference, reference_fisher

__all__ = [
    "Block",
    "Coverage",
    "FisherEstimate",
    "Plan",
    "Price",
    "Reference",
    "SelfCheck",
    "coverage",
    "estimate_fisher",
    "find_blocks",
    "merge",
    "prices",
    "reference_fisher",
    "self_check",
    "self_checks",
]
