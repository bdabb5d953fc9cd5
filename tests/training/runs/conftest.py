"""What tests of whole runs share."""

import pytest
import torch

from fishlens.training import loop


@pytest.fixture
def watched(monkeypatch):
    """After every update: the names of the blocks whose parameters differ from before it in any bit, which have a
    gradient while they update, and how many of their parameters have optimizer state."""
    seen = []
    real_update = loop.update

    def update(job):
        before = {n: p.detach().clone() for n, p in job.assembly.model.named_parameters()}
        with_gradient = set()
        optimizer_step = job.optimizer.step

        def step(*arguments, **options):
            with_gradient.update(n for n, p in job.assembly.parameters().items() if p.grad is not None)
            return optimizer_step(*arguments, **options)

        monkeypatch.setattr(job.optimizer, "step", step)
        norm = real_update(job)
        monkeypatch.setattr(job.optimizer, "step", optimizer_step)
        moved = {
            n for n, p in job.assembly.model.named_parameters() if not torch.equal(before[n], p.detach())
        }
        of = {n: b.name for b in job.assembly.blocks for n in b.parameters}
        seen.append(
            {
                "moved": {of.get(n, n) for n in moved},
                "gradient": {of[n] for n in with_gradient},
                "state": {of[n] for n, p in job.assembly.parameters().items() if job.optimizer.state.get(p)},
            }
        )
        return norm

    monkeypatch.setattr(loop, "update", update)
    return seen
