"""What has to hold on a GPU before any time means anything: right numbers, and training that does not notice.

    python benchmarks/gpu.py --device cuda      three checks, each one line; exit status 1 if one fails
    python benchmarks/gpu.py --device cpu       the same where there is no GPU

1. float64: traces and diagonals of every block on the device are those of plain autograd, one example at a time.
2. float32 and bf16 autocast agree with float64 as far as they can.
3. A training of a few updates ends in the same bits with and without a Tracker; a probe waits for the device at most
   twice (counted by torch's own warnings of synchronisation, on CUDA).
"""

import argparse
import sys
import warnings

import torch
from fisher import Shape, build
from fisher_contenders import Setup
from torch import Tensor

from fishlens import Tracker, estimate_fisher
from fishlens.fisher import Plan, reference_fisher

SHAPE = {"layers": 4, "width": 128, "examples": 6, "tokens": 24}


def setup(adapter: str, device: str, dtype: torch.dtype = torch.float32) -> Setup:
    made = build(Shape(adapter, **SHAPE, device=device))
    made.model.to(dtype)
    generator = torch.Generator().manual_seed(1)
    for block in made.blocks:  # LoRA's B is zero at first, and so is the gradient of A
        for parameter in block.parameters.values():
            noise = 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data += noise.to(parameter)
    return made


def apart(found: Tensor, expected: Tensor) -> float:
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-300))


def agreement(adapter: str, device: str) -> list[tuple[str, float, float]]:
    """(what, how far apart, how far it may be)."""
    wide = setup(adapter, device, torch.float64)
    options = {"labels": "exact", "diagonal": True}
    found = estimate_fisher(wide.model, wide.batch, blocks=wide.blocks, **options)
    expected = reference_fisher(wide.model, wide.batch, wide.blocks, labels="exact")
    rows = [
        (
            "trace, float64",
            max(apart(found.per_example[b], expected.per_example[b]) for b in found.trace),
            1e-9,
        ),
        ("diagonal, float64", max(apart(d, expected.diagonal[n]) for n, d in found.diagonal.items()), 1e-9),
    ]
    narrow = setup(adapter, device)
    for name, autocast, allowed in (("float32", None, 1e-4), ("bf16 autocast", torch.bfloat16, 0.1)):
        one = estimate_fisher(narrow.model, narrow.batch, blocks=narrow.blocks, autocast=autocast, **options)
        worst = max(apart(one.per_example[b], found.per_example[b]) for b in found.trace)
        rows.append((f"trace, {name}", worst, allowed))
    return rows


def trained(adapter: str, device: str, tracked: bool, updates: int = 8) -> list[Tensor]:
    """The weights after a few updates."""
    made = setup(adapter, device)
    made.model.train()
    weights = [p for p in made.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    torch.manual_seed(0)
    tracker = Tracker(made.model, made.batch, blocks=made.blocks, every=2) if tracked else None
    for step in range(updates):
        if tracker is not None:
            tracker.step(step)
        made.loss(made.model, "mean").backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if tracker is not None and tracker.trouble is not None:
        sys.exit(f"the tracker gave up: {tracker.trouble}")
    return [p.detach().clone() for p in made.model.parameters()]


def waits(adapter: str, device: str) -> int:
    """How often a probe with a kept plan waits for the device more than a forward and backward pass does."""
    made, plan = setup(adapter, device), Plan()

    def probe() -> None:
        estimate_fisher(made.model, made.batch, blocks=made.blocks, labels="mc", diagonal=True, plan=plan)

    def plain() -> None:
        made.loss(made.model, "mean").backward()

    counts = []
    for call in (probe, plain):
        call()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(one.message) for one in told))
    return counts[0] - counts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    device = parser.parse_args().device
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    failed = False
    for adapter in ("seq_bn", "lora"):
        for what, distance, allowed in agreement(adapter, device):
            failed |= not distance <= allowed
            print(f"{adapter}: {what}: {distance:.1e} apart, at most {allowed:.0e}")
        same = all(map(torch.equal, trained(adapter, device, True), trained(adapter, device, False)))
        failed |= not same
        print(f"{adapter}: tracked and not: {'the same bits' if same else 'OTHER BITS'}")
        if device == "cuda":
            count = waits(adapter, device)
            failed |= count > 2
            print(f"{adapter}: a probe waits {count} times for the device, at most 2")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
