"""What one forward pass of a loaded model shows of its code: which modules run, what logits are.

An adapter works where its layer is called. Models with fused kernels (Mamba's, say) read the
weight of a layer that they never call, and an adapter on it would train nothing, silently
(https://github.com/huggingface/peft/issues/2556).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from etude.core.errors import AdapterError
from etude.tuning.adapters.saved_parts import listed
from etude.tuning.adapters.targets import ALL_LINEAR, find_targets
from etude.tuning.fusion.undisturbed import undisturbed
from etude.tuning.models.foreign_code import foreign_code

PROBE_TOKENS = 13
"""Tokens of a probe: few, and prime, so that no block of a kernel ends with them."""

_plain: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def random_tokens(model: Any, count: int) -> Tensor:
    """Return `count` tokens of the model's vocabulary, the same each time, on its device.

    None of them is the padding token, from which some models count their positions.
    """
    words = len(model.get_input_embeddings().weight)
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)
    left_out = 0 if padding is None else int(padding) % words
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(1, words, (count,), generator=generator)
    return ((left_out + steps) % words).to(model.device)


def called_targets(model: Any, targets: str | list[str]) -> tuple[str | list[str], str | None]:
    """Return the targets whose modules a forward pass calls, and a line about those left out.

    `all-linear` leaves out what is not called; a named module has to be.

    Args:
        model: a model without adapters.
        targets: as the recipe has them.

    Raises:
        AdapterError: a named module is not called; the message names it.
        NoTargetMatchedError: an entry matches nothing.
    """
    paths = find_targets(model, targets)
    unused = _uncalled(model, paths)
    if not unused:
        return targets, None
    why = f"{type(model).__name__} reads the weight of {listed(unused)} without calling it"
    if targets != ALL_LINEAR:
        raise AdapterError(
            f"{why}: an adapter there would train nothing; leave it out of adapter.target_modules"
        )
    return [path for path in paths if path not in unused], f"not adapted: {why}"


def _uncalled(model: Any, paths: list[str]) -> list[str]:
    """Return those of the modules that a forward pass in training does not call.

    Of modules that are alike inside a layer (experts), a few tokens need not reach all: one called
    speaks for the others.
    """
    ran: set[str] = set()

    def note(path: str, module: nn.Module, given: Any) -> None:
        del module, given
        ran.add(path)

    with undisturbed(model, training=True), foreign_code(model):
        for path in paths:
            model.get_submodule(path).register_forward_pre_hook(partial(note, path))
        model(**_probe_inputs(model))
    alike = {_expert(path) for path in ran} - {None}
    return [path for path in paths if path not in ran and _expert(path) not in alike]


def _probe_inputs(model: Any) -> dict[str, Tensor]:
    """Return a few tokens, or one image."""
    if model.main_input_name != "pixel_values":
        return {"input_ids": random_tokens(model, PROBE_TOKENS)[None]}
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(image_shape(model.config), generator=generator)
    return {"pixel_values": pixels.to(model.device, model.dtype)}


def image_shape(config: Any, count: int = 1, size: tuple[int, int] | None = None) -> list[int]:
    """Return the shape of a batch of images: (images, channels, height, width).

    Args:
        config: of the model.
        count: of images.
        size: height and width; None: those of the configuration.
    """
    side: Any = getattr(config, "image_size", None) or 224
    height, width = size or ((side, side) if isinstance(side, int) else tuple(side))
    return [count, int(getattr(config, "num_channels", 3)), height, width]


def _expert(path: str) -> str | None:
    """Return the path with the last of two or more indices left open, else None."""
    numbers = list(re.finditer(r"(?<=\.)\d+(?=\.)", path))
    if len(numbers) < 2:
        return None
    last = numbers[-1]
    return f"{path[: last.start()]}*{path[last.end() :]}"


def logits_are_plain(model: Any) -> bool:
    """Return whether logits are just the trunk's last hidden state times the output matrix.

    Models scale or cap them under many names, so one pass compares the two; the answer is kept.
    Without numbers (an estimate of memory) the known names have to do.
    """
    if model.base_model is model:
        return False
    head = model.get_output_embeddings()
    if isinstance(head.weight, FakeTensor):
        return not any(
            getattr(model.config, name, None) not in (None, 1, 1.0)
            for name in ("final_logit_softcapping", "logits_scaling", "logit_scale")
        )
    if model not in _plain:
        _plain[model] = _compare_logits(model, cast("Tensor", head.weight).detach())
    return _plain[model]


def _compare_logits(model: Any, weight: Tensor) -> bool:
    trunk = cast("nn.Module", model.base_model)
    states: list[Any] = []

    def keep(module: nn.Module, given: Any, output: Any) -> None:
        del module, given
        states.append(output)

    with undisturbed(model), foreign_code(model):
        trunk.register_forward_hook(keep)
        tokens = random_tokens(model, PROBE_TOKENS)
        found = cast("Tensor", model(input_ids=tokens[None], use_cache=False).logits)[0]
    if not states:
        return False  # OPT's calls a part of its trunk
    hidden = cast("Tensor | None", getattr(states[-1], "last_hidden_state", None))
    if hidden is None or hidden.shape[-1] != weight.shape[-1]:
        return False
    plain = hidden[0].to(weight.dtype) @ weight.T
    if plain.shape != found.shape:
        return False
    # The same product by the same kernels; a unit of rounding of each logit is allowed for.
    error = relative_difference(plain, found, found)
    return error <= 2 * torch.finfo(found.dtype).eps


def relative_difference(values: Tensor, reference: Tensor, scale: Tensor) -> float:
    """Return ‖values − reference‖ / ‖scale‖ in float64, or the numerator if the scale is zero."""
    error, size = (float(one.double().square().sum().sqrt()) for one in (values - reference, scale))
    return error / size if size else error
