"""What is left of columns when strata, crossed units and controls are taken away, and what it is when one unit is left
out.

Runs are laid out by schedule and seed. A schedule shifts all of its runs; a seed (data order, initial weights) shifts
its run in every schedule. Both are factors with one level each, and both cost degrees of freedom.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
_RANK = 1e-10  # singular values this small, relative to the largest, are rounding
_CONSTANT = 1e-12


@dataclass(frozen=True)
class Layout:
    """The space that factors and controls explain: `basis` `[n, rank]`, orthonormal."""

    basis: Array

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def freedom(self) -> int:
        """Degrees of freedom that are left."""
        return len(self.basis) - self.rank

    def residual(self, rows: Array) -> Array:
        """`rows` `[…, n]` less what the layout explains of them."""
        return rows - (rows @ self.basis) @ self.basis.T

    def without_each(self, x: Array, y: Array, units: Codes) -> Array:
        """Pearson's r of two residuals, x `[n]` and y `[…, n]`, when each unit is left out in turn and everything is
        fitted again; `[…, units]`, NaN where nothing is left.

        Leaving rows g out is giving each of them a dummy: aᵀb becomes aᵀb − a_gᵀ M_gg⁺ b_g with M = I − basis basisᵀ.
        """
        keep = np.eye(len(x)) - self.basis @ self.basis.T
        count = int(units.max()) + 1
        xy, yy = np.empty((2, *y.shape[:-1], count))
        xx = np.empty(count)
        whole_x, whole_y = x @ x, (y**2).sum(axis=-1)
        for unit in range(count):
            g = np.flatnonzero(units == unit)
            inverse = np.linalg.pinv(keep[np.ix_(g, g)], rcond=1e-9, hermitian=True)
            xx[unit] = whole_x - x[g] @ inverse @ x[g]
            xy[..., unit] = y @ x - y[..., g] @ (inverse @ x[g])
            yy[..., unit] = whole_y - ((y[..., g] @ inverse) * y[..., g]).sum(axis=-1)
        alive = (xx > _CONSTANT * whole_x) & (yy > _CONSTANT * whole_y[..., None])
        size = np.sqrt(np.where(alive, xx * yy, 1.0))
        return np.where(alive, np.clip(xy / size, -1.0, 1.0), np.nan)


def layout(factors: list[Codes], controls: Array | None = None, n: int | None = None) -> Layout:
    """The layout of `factors` (codes of one level per row; none: a common mean) and `controls` `[n, k]`.

    Controls are centred on the factors and scaled first, so that their units do not decide what counts as rounding.
    """
    size = len(factors[0]) if factors else int(n or 0)
    basis = _levels(size, tuple(codes.astype(np.int64).tobytes() for codes in factors))
    if controls is not None and controls.shape[1]:
        rest = controls - basis @ (basis.T @ controls)
        spread = np.sqrt((rest**2).sum(axis=0))
        alive = spread > _RANK * np.sqrt((controls**2).sum(axis=0))
        if alive.any():
            basis = np.column_stack([basis, _orthonormal(rest[:, alive] / spread[alive])])
    return Layout(basis)


@lru_cache(maxsize=8)  # a report asks for the same layout for every feature
def _levels(size: int, factors: tuple[bytes, ...]) -> Array:
    """Of a common mean and a level for each code."""
    codes = [np.frombuffer(factor, dtype=np.int64) for factor in factors]
    basis = _orthonormal(np.column_stack([np.ones((size, 1)), *[np.eye(c.max() + 1)[c] for c in codes]]))
    basis.flags.writeable = False
    return basis


def _orthonormal(columns: Array) -> Array:
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > _RANK * sizes[0]]


def connected(rows: Codes, columns: Codes) -> Codes:
    """The connected part of the layout that each row lies in: only inside one can levels be told apart."""
    strata, units = int(rows.max()) + 1, int(columns.max()) + 1
    links = sparse.coo_matrix((np.ones(len(rows)), (rows, strata + columns)), shape=(strata + units,) * 2)
    _, labels = csgraph.connected_components(links, directed=False)
    return labels[rows].astype(np.intp)


def informative(x: Array, y: Array, strata: Codes, crossed: Codes | None) -> NDArray[np.bool_]:
    """Which rows say something: not those of a stratum in which x or y is constant (a stratum of one row among them),
    and not the only row of a crossed unit, which the unit's own level fits exactly."""
    keep = np.ones(len(x), dtype=bool)
    while keep.any():
        before = int(keep.sum())
        for column in (x, y):
            keep &= ~_flat(column, strata, keep)
        if crossed is not None:
            counts = np.bincount(crossed[keep], minlength=int(crossed.max()) + 1)
            keep &= counts[crossed] > 1
        if int(keep.sum()) == before:
            break
    return keep


def _flat(values: Array, strata: Codes, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows of strata in which the kept values do not vary beyond rounding."""
    count = int(strata.max()) + 1
    low, high, size = np.full(count, np.inf), np.full(count, -np.inf), np.zeros(count)
    np.minimum.at(low, strata[keep], values[keep])
    np.maximum.at(high, strata[keep], values[keep])
    np.maximum.at(size, strata[keep], np.abs(values[keep]))
    return (high - low <= _CONSTANT * size)[strata]
