"""How a run was optimised, in words, for its report."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from etude.core import units as q
from etude.tuning.config.recipe import Recipe
from etude.tuning.optim.schedules import learning_rate, warmup_steps
from etude.tuning.training.gradient_noise import NoiseScale
from etude.tuning.training.trainer import Trainer


def optimization_facts(
    recipe: Recipe, trainer: Trainer, noise: NoiseScale | None
) -> dict[str, str]:
    """Return what acted on the weights and their gradients, by its name.

    Args:
        recipe: of the run.
        trainer: at the end of training.
        noise: the gradient noise scale, if it was measured.
    """
    spec, total = recipe.train, trainer.counters.total_steps
    scale = trainer.counters.plateau.scale
    last = learning_rate(spec, max(0, trainer.counters.step - 1), total, scale)
    facts = {
        "optimiser": spec.optimizer,
        "schedule": f"{spec.lr_scheduler}, warm-up in {warmup_steps(spec, total):,} of {total:,} "
        f"steps, peak {q.rate(spec.lr)}, last {q.rate(last)}",
    }
    if spec.weight_decay > 0:
        facts["weight decay"] = _decay(spec.weight_decay, trainer)
    if spec.delta_decay > 0:
        facts["decay of ΔW"] = f"{spec.delta_decay:g}"
    if spec.neftune_alpha is not None:
        facts["NEFTune noise"] = f"α {spec.neftune_alpha:g}, on the input embeddings"
    if spec.ema_decay is not None:
        facts["average of the weights"] = (
            f"evaluated and saved; decay {spec.ema_decay:g}, a window of about "
            f"{1 / (1 - spec.ema_decay):,.0f} steps"
        )
    if spec.gradient_noise:
        facts["gradient noise scale"] = (
            noise.advice().partition(": ")[2]
            if noise is not None
            else "not measured: too few steps of at least two passes; lower train.micro_tokens"
        )
    return facts


def _decay(decay: float, trainer: Trainer) -> str:
    """Return which weights decay."""
    decayed = whole = 0
    for group in trainer.optimizer.param_groups:
        numbers = sum(p.numel() for p in cast("list[Tensor]", group["params"]))
        whole += numbers
        decayed += numbers if group["weight_decay"] > 0 else 0
    exempt = whole - decayed
    rest = f"; none on {q.short_number(exempt)} (norms, biases, magnitudes)" if exempt else ""
    return f"{decay:g} on {q.short_number(decayed)} numbers{rest}"
