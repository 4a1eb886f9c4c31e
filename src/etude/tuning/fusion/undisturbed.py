"""A forward pass of our own that leaves no trace: what is probed is a user's model.

Hooks that somebody else has registered, on the model's modules or for all modules, see nothing of
it. Random numbers, attributes (caches, the training mode) and buffers (running statistics, rotary
frequencies that grow) are as before afterwards.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from etude.tuning.adapters.targets import named_modules
from etude.tuning.quant.linear import QuantLinear

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Dictionaries of a module; those of all modules have the same names with `_global` before."""


@contextmanager
def undisturbed(model: Any, *, training: bool = False) -> Generator[None]:
    """Context manager: a place for a forward pass, without gradients, that leaves no trace.

    Args:
        model: the model that will be called; its weights must not be changed inside.
        training: the mode that it is in.
    """
    modules = [module for _, module in named_modules(model)]
    device = cast("torch.device", model.device)
    devices = [device] if device.type == "cuda" and torch.cuda.is_initialized() else []
    with ExitStack() as stack:
        stack.enter_context(cast("Any", torch.random).fork_rng(devices))
        stack.enter_context(_set_aside(_hooks_of_all(modules)))
        for module in modules:
            stack.enter_context(_restored(module))
        stack.enter_context(torch.no_grad())
        model.train(training)
        yield


def _hooks_of_all(modules: list[nn.Module]) -> list[dict[int, Any]]:
    found: list[dict[int, Any]] = [getattr(torch_module, f"_global{name}") for name in _HOOKS]
    for module in modules:
        found += [vars(module)[name] for name in _HOOKS]
    return found


@contextmanager
def _set_aside(dictionaries: list[dict[int, Any]]) -> Generator[None]:
    """Context manager: empty the dictionaries, and fill them as they were.

    The same objects are filled: whoever registered a hook removes it from there.
    """
    filled = [(one, dict(one)) for one in dictionaries]
    for one, _ in filled:
        one.clear()
    try:
        yield
    finally:
        for one, content in filled:
            one.clear()
            one.update(content)


@contextmanager
def _restored(module: nn.Module) -> Generator[None]:
    """Context manager: restore a module's attributes and buffers, each number of them."""
    attributes = dict(vars(module))
    # Those of a quantised layer are its weight: much, and no pass changes it.
    small = not isinstance(module, QuantLinear)
    held = cast("dict[str, Tensor | None]", attributes["_buffers"])
    buffers = dict(held)
    values = {n: b.clone() for n, b in buffers.items() if b is not None and small}
    try:
        yield
    finally:
        vars(module).clear()
        vars(module).update(attributes)
        held.clear()
        held.update(buffers)
        for name, value in values.items():
            buffer = cast("Tensor", buffers[name])
            if not torch.equal(buffer, value):
                buffer.copy_(value)
