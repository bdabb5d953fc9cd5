"""The state of the random generators that training draws from (dropout), saved and restored exactly."""

import torch


def random_state() -> dict[str, torch.Tensor]:
    """Byte tensors: torch's CPU generator and that of the current CUDA device, if there is one."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
