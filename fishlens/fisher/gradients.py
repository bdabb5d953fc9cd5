"""Per-example gradients of one parameter, kept in the form in which they are cheapest to square.

Everything the engine reports is a function of s_n, the gradient of example n. Three forms cover all rules:
`Dense` (s_n itself), `OuterSum` (s_n = Σ_t l_t r_tᵀ, a linear map used at T positions) and `RowSum` (an
embedding table of which a few rows are touched). Each can give, without the others: the squared norm of
every s_n, the sum over examples of s_n², and s_n itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor


def flattened(x: Tensor) -> Tensor:
    """`[N, …]` as `[N, D]`, also where each of the N has one number and no dimension."""
    return x.reshape(len(x), -1)


class PerExampleGradient(ABC):
    """The gradients of N examples with respect to one parameter of `shape`; float32 or wider."""

    shape: torch.Size

    @property
    @abstractmethod
    def examples(self) -> int: ...

    @abstractmethod
    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        """s_n for n in [start, stop), `[n, *shape]`."""

    def squared(self, start: int = 0, stop: int | None = None) -> Tensor:
        """s_n² for n in [start, stop), `[n, *shape]`: a tensor of its own."""
        return self.dense(start, stop).square()

    def squared_norms(self, chunk: int) -> Tensor:
        """‖s_n‖² of every example, `[N]`; at most `chunk` examples are materialised at a time."""
        return torch.cat([flattened(square).sum(1) for square in self._chunks(chunk)])

    def squares(self, chunk: int, diagonal: Tensor, weight: float = 1.0) -> Tensor:
        """‖s_n‖² of every example, and adds `weight` Σ_n s_n² to `diagonal` (of `shape`) in place."""
        norms = []
        for square in self._chunks(chunk):
            norms.append(flattened(square).sum(1))
            diagonal.add_(square.sum(0), alpha=weight)
        return torch.cat(norms)

    def total(self) -> Tensor:
        """Σ_n s_n, of `shape`."""
        return self.totals(1)[0]

    def totals(self, parameters: int) -> Tensor:
        """Σ_n s_n of each of K parameters, whose examples lie one after the other: `[K, *shape]`."""
        return self.dense().view(parameters, -1, *self.shape).sum(1)

    def _chunks(self, size: int) -> Iterator[Tensor]:
        for start in range(0, self.examples, size):
            yield self.squared(start, min(start + size, self.examples))

    def chunk_for(self, memory: int) -> int:
        """How many examples fit into `memory` bytes when materialised (at least one)."""
        width = self.dense_itemsize * max(1, self.shape.numel())
        return max(1, min(self.examples, memory // width))

    @property
    @abstractmethod
    def dense_itemsize(self) -> int: ...


class Dense(PerExampleGradient):
    """s_n as it is: `values` `[N, *shape]`."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.shape = values.shape[1:]

    @property
    def examples(self) -> int:
        return self.values.shape[0]

    @property
    def dense_itemsize(self) -> int:
        return self.values.element_size()

    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        return self.values[start:stop]


class OuterSum(PerExampleGradient):
    """s_n = Σ_t left[n, t] right[n, t]ᵀ with `left` `[N, T, o]`, `right` `[N, T, i]`; shape `[o, i]`."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right
        self.shape = torch.Size([left.shape[2], right.shape[2]])

    @property
    def examples(self) -> int:
        return self.left.shape[0]

    @property
    def dense_itemsize(self) -> int:
        return self.left.element_size()

    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        return torch.bmm(self.left[start:stop].transpose(1, 2), self.right[start:stop])

    def squared(self, start: int = 0, stop: int | None = None) -> Tensor:
        return self.dense(start, stop).square_()

    def totals(self, parameters: int) -> Tensor:
        left, right = (x.reshape(parameters, -1, x.shape[-1]) for x in (self.left, self.right))
        return torch.bmm(left.transpose(1, 2), right)

    @property
    def gram_is_cheaper(self) -> bool:
        """T(o + i) < o·i: the two T×T matrices take fewer multiplications than the gradient, and less
        memory."""
        positions, (rows, columns) = self.left.shape[1], self.shape
        return positions * (rows + columns) < rows * columns

    def squared_norms(self, chunk: int) -> Tensor:
        """Gram form where cheaper: ‖Σ_t l_t r_tᵀ‖² = Σ_{t,u} (l_t·l_u)(r_t·r_u); nothing of `shape` is
        made."""
        if not self.gram_is_cheaper:
            return super().squared_norms(chunk)
        left = torch.bmm(self.left, self.left.transpose(1, 2))
        right = torch.bmm(self.right, self.right.transpose(1, 2))
        return left.mul_(right).sum((1, 2))


class RowSum(PerExampleGradient):
    """Gradient of a table `[V, d]` whose rows `index` `[N, T]` were read: row v gets Σ_{t: index_t = v}
    g_t."""

    def __init__(self, index: Tensor, gradient: Tensor, rows: int, ignored: int | None = None) -> None:
        self.index, self.rows = index, rows
        if ignored is not None:
            gradient = gradient.masked_fill((index == ignored).unsqueeze(-1), 0.0)
        self.gradient = gradient
        self.shape = torch.Size([rows, gradient.shape[2]])

    @property
    def examples(self) -> int:
        return self.index.shape[0]

    @property
    def dense_itemsize(self) -> int:
        return self.gradient.element_size()

    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        index, gradient = self.index[start:stop], self.gradient[start:stop]
        table = gradient.new_zeros(len(index), *self.shape)
        return table.scatter_add_(1, index.unsqueeze(-1).expand_as(gradient), gradient)

    def totals(self, parameters: int) -> Tensor:
        if parameters > 1:
            return super().totals(parameters)
        table = self.gradient.new_zeros(self.shape)
        return table.index_add_(0, self.index.flatten(), self.gradient.flatten(0, 1)).unsqueeze(0)

    def _distinct_rows(self) -> Tensor:
        """The summed gradient of every distinct row, at its first position; zero at the others: `[N, T,
        d]`."""
        same = self.index.unsqueeze(1) == self.index.unsqueeze(2)
        earlier = same.tril(-1).any(2)
        summed = torch.bmm(same.to(self.gradient.dtype), self.gradient)
        return summed.masked_fill(earlier.unsqueeze(-1), 0.0)

    def squared_norms(self, chunk: int) -> Tensor:
        return self._distinct_rows().square().sum((1, 2))

    def squares(self, chunk: int, diagonal: Tensor, weight: float = 1.0) -> Tensor:
        square = self._distinct_rows().square()
        diagonal.index_add_(0, self.index.flatten(), square.flatten(0, 1), alpha=weight)
        return square.sum((1, 2))


class Sum(PerExampleGradient):
    """The sum of gradients of different forms: a table that is both an embedding and a decoder."""

    def __init__(self, parts: list[PerExampleGradient]) -> None:
        self.parts = parts
        self.shape = parts[0].shape

    @property
    def examples(self) -> int:
        return self.parts[0].examples

    @property
    def dense_itemsize(self) -> int:
        return self.parts[0].dense_itemsize

    def dense(self, start: int = 0, stop: int | None = None) -> Tensor:
        total = self.parts[0].dense(start, stop)
        for part in self.parts[1:]:
            total = total + part.dense(start, stop)
        return total


def joined(parts: list[PerExampleGradient]) -> PerExampleGradient:
    """The gradient of one parameter that several calls used: the sum over the calls, before any squaring."""
    if all(isinstance(part, OuterSum) for part in parts):
        # more positions of the same map
        return OuterSum(
            torch.cat([part.left for part in parts], 1),  # type: ignore[attr-defined]
            torch.cat([part.right for part in parts], 1),  # type: ignore[attr-defined]
        )
    if all(isinstance(part, Dense) for part in parts):
        return Dense(torch.stack([part.values for part in parts]).sum(0))  # type: ignore[attr-defined]
    return Sum(parts)
