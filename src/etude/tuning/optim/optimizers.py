"""Construction of the recipe's optimiser and its parameter groups; `registry.py` lists optimisers.

LoRA+ gives U (`lora_B`) its own learning rate, `loraplus_lr_ratio` times that of the other
parameters (Hayou et al. 2024, "LoRA+": B starts at zero and has further to move), except in
embeddings. A task's new head has `head_lr_ratio` times that rate. Weight decay applies to weights
that multiply activations, not to biases and norms. Each adapter kind declares which of its tensors
are U and which decay (`adapters/registry.py`): those for which zero means ΔW = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import RunError
from etude.tuning.adapters.registry import adapter_tensors
from etude.tuning.adapters.trained_rows import DELTA
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.adamw import PlacedAdamW
from etude.tuning.optim.paged import paged_memory
from etude.tuning.optim.registry import OPTIMIZERS


def make_optimizer(
    spec: TrainSpec,
    parameters: Mapping[str, nn.Parameter],
    folder: Path | None = None,
    *,
    heads: Sequence[str] = (),
) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe.

    Args:
        spec: the recipe's `train` section.
        parameters: the trained weights by name.
        folder: directory of paged state on a CPU. None: the system's temporary directory.
        heads: names of the modules of a task's new head.

    Returns:
        The optimiser; each of its groups has a `lr_ratio`, used by `set_learning_rate`.

    Raises:
        RunError: paged state cannot be allocated.
    """
    groups = parameter_groups(spec, parameters, heads)
    devices = {parameter.device for parameter in parameters.values()}
    memory = paged_memory(devices, folder) if spec.paged else None
    return OPTIMIZERS[spec.optimizer].make(groups, spec, memory)


def parameter_groups(
    spec: TrainSpec, parameters: Mapping[str, nn.Parameter], heads: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return parameter groups, each with one learning rate and one weight decay."""
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        ratio = spec.loraplus_lr_ratio if _is_up_factor(name) else 1.0
        if any(name.startswith(f"{head}.") for head in heads):
            ratio = spec.head_lr_ratio
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
    """Return whether weight decay applies: as the adapter kind declares; not to biases, norms.

    Nor to rows of added tokens: they are values, not changes, and would fade in every step that
    does not contain their token.
    """
    last = name.rpartition(".")[2]
    own = adapter_tensors().get(last)
    return own.decays if own is not None else parameter.ndim > 1 and last not in ("bias", DELTA)


def _is_up_factor(name: str) -> bool:
    own = adapter_tensors().get(name.rpartition(".")[2])
    return own is not None and own.up


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate to `lr` times its ratio."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_ratio"]


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore a saved state.

    Raises:
        RunError: it belongs to another optimiser, or its groups differ.
    """
    own = ("lr_ratio", "optimizer")
    ours = [{key: group[key] for key in own} for group in optimizer.param_groups]
    # Checkpoints that do not name an optimiser are older and used AdamW.
    theirs = [{"lr_ratio": 1.0, "optimizer": "adamw", **group} for group in saved["param_groups"]]
    try:
        if ours != [{key: group[key] for key in own} for group in theirs]:
            raise ValueError
        optimizer.load_state_dict({**saved, "param_groups": theirs})
    except (ValueError, KeyError):
        raise RunError(
            f"the checkpoint's optimiser state is for {theirs[0]['optimizer']} and does not fit "
            f"this recipe's {ours[0]['optimizer']} and parameter groups; resume with the original "
            "recipe, or start a new run"
        ) from None


def release_state(optimizer: torch.optim.Optimizer) -> None:
    """Unmap resident pages of paged state, for example after a checkpoint."""
    if isinstance(optimizer, PlacedAdamW):
        optimizer.memory.let_go()


def optimizer_figures(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimiser's entries of a run's summary: name, state size and location."""
    states = cast("list[dict[str, Any]]", list(optimizer.state.values()))
    tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return {
        "optimizer": optimizer.param_groups[0]["optimizer"],
        "optimizer_bytes": sum(tensor.nbytes for tensor in tensors),
        "optimizer_paged": isinstance(optimizer, PlacedAdamW) and optimizer.memory.paged,
    }
