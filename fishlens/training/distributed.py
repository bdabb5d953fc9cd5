"""Several processes, one batch: gradients are summed by hand instead of by DistributedDataParallel.

DDP's reducer knows the parameters that required gradients when the model was wrapped; a block thawed later would be
silently not synchronised. What trains here is small (adapters and a head), so one flat all-reduce per update costs
little, sees whatever is thawed at that moment, and leaves the model as it is for probes.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from fishlens.tracking.processes import several_processes


def first_process() -> bool:
    return not several_processes() or dist.get_rank() == 0


def sum_over_processes(value: float, device: torch.device) -> float:
    """The sum of a number that every process has."""
    if not several_processes():
        return value
    total = torch.tensor(value, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    dist.all_reduce(total)
    return float(total)


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace each `.grad` by its sum over processes; where none has one it stays None."""
    if not several_processes() or not parameters:
        return
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([present, *(g.reshape(-1).to(present.dtype) for g in gradients)])
    dist.all_reduce(flat)
    offset = len(parameters)
    for index, parameter in enumerate(parameters):
        if flat[index] > 0:
            summed = flat[offset : offset + parameter.numel()].view_as(parameter)
            parameter.grad = summed.to(parameter.dtype).clone()
        offset += parameter.numel()


def same_everywhere(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Give every process the weights of the first one."""
    if several_processes():
        for parameter in parameters:
            dist.broadcast(parameter.data, src=0)
