"""The recipe's optimiser over the trained weights, and in which groups; `registry.py` has which.

Groups. LoRA+ gives U (`lora_B`) a learning rate of its own, `loraplus_lr_ratio` times that of the
rest (Hayou et al. 2024, "LoRA+": B begins at zero and has to come further); an embedding's U like
any other's. Weight decay is for what multiplies activations: not for biases and norms, where it has
no such meaning. Which tensors of an adapter are U, and which decay, its kind says
(`adapters/registry.py`): those do that at zero mean ΔW = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import RunError
from etude.tuning.adapters.registry import adapter_tensors
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.adamw import PlacedAdamW
from etude.tuning.optim.paged import paged_memory
from etude.tuning.optim.registry import OPTIMIZERS


def make_optimizer(
    spec: TrainSpec, parameters: Mapping[str, nn.Parameter], folder: Path | None = None
) -> torch.optim.Optimizer:
    """Make the optimiser that a recipe asks for.

    Args:
        spec: the recipe's.
        parameters: the trained weights by name.
        folder: where paged state goes on a CPU. None: the system's folder for temporary files.

    Returns:
        The optimiser; each of its groups has a `lr_ratio`, which `set_learning_rate` obeys.

    Raises:
        RunError: there is no room for paged state.
    """
    groups = parameter_groups(spec, parameters)
    devices = {parameter.device for parameter in parameters.values()}
    memory = paged_memory(devices, folder) if spec.paged else None
    return OPTIMIZERS[spec.optimizer].make(groups, spec, memory)


def parameter_groups(
    spec: TrainSpec, parameters: Mapping[str, nn.Parameter]
) -> list[dict[str, Any]]:
    """Return groups of parameters with one learning rate and one weight decay each."""
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        ratio = spec.loraplus_lr_ratio if _is_up_factor(name) else 1.0
        decay = spec.weight_decay if decays(name, parameter) else 0.0
        members.setdefault((ratio, decay), []).append(parameter)
    return [
        {
            "params": group,
            "lr": spec.lr * ratio,
            "weight_decay": decay,
            "lr_ratio": ratio,
            "optimizer": spec.optimizer,
        }
        for (ratio, decay), group in members.items()
    ]


def decays(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: as an adapter's kind says; not to biases and norms."""
    last = name.rpartition(".")[2]
    own = adapter_tensors().get(last)
    return own.decays if own is not None else parameter.ndim > 1 and last != "bias"


def _is_up_factor(name: str) -> bool:
    own = adapter_tensors().get(name.rpartition(".")[2])
    return own is not None and own.up


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's rate to `lr` times its ratio."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_ratio"]


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Go back to a saved state.

    Raises:
        RunError: it is another optimiser's, or one of other groups.
    """
    own = ("lr_ratio", "optimizer")
    ours = [{key: group[key] for key in own} for group in optimizer.param_groups]
    # Runs from before there was a choice had AdamW, and do not say so.
    theirs = [{"lr_ratio": 1.0, "optimizer": "adamw", **group} for group in saved["param_groups"]]
    try:
        if ours != [{key: group[key] for key in own} for group in theirs]:
            raise ValueError
        optimizer.load_state_dict({**saved, "param_groups": theirs})
    except (ValueError, KeyError):
        raise RunError(
            f"the checkpoint holds the state of {theirs[0]['optimizer']} in other groups or of "
            f"another kind than this recipe's {ours[0]['optimizer']}; resume with the recipe that "
            "the run began with, or start a new run"
        ) from None


def release_state(optimizer: torch.optim.Optimizer) -> None:
    """Unmap what was read of paged state, by a checkpoint say."""
    if isinstance(optimizer, PlacedAdamW):
        optimizer.memory.let_go()


def optimizer_figures(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what a run's summary says of its optimiser: name, bytes of state, and where."""
    states = cast("list[dict[str, Any]]", list(optimizer.state.values()))
    tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return {
        "optimizer": optimizer.param_groups[0]["optimizer"],
        "optimizer_bytes": sum(tensor.nbytes for tensor in tensors),
        "optimizer_paged": isinstance(optimizer, PlacedAdamW) and optimizer.memory.paged,
    }
