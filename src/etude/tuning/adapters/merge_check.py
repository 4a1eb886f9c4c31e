"""Check of a merge: is the merged model the base with its adapter?

The logits of the merged folder, read back by transformers, are compared twice, all in float32:

- with base and adapter as Etude read them. What differs is the rounding of the merged weights.
- with base and adapter as PEFT reads them, where PEFT is installed, the base is a folder and not
  quantised, and there is memory for it. What Etude misread shows here, and nowhere else.
"""

from __future__ import annotations

import gc
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError
from etude.tuning.adapters.experts import AdaptedExperts
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.modules_to_save import ModuleToSave
from etude.tuning.adapters.read import SavedAdapter, read_adapter
from etude.tuning.adapters.saved_parts import WEIGHTS
from etude.tuning.models.cut import cut_module
from etude.tuning.models.heads import CAUSAL_LM, Head
from etude.tuning.models.load import ModelOrigin
from etude.tuning.models.output import no_bars
from etude.tuning.quant.linear import QuantLinear

_FLOAT32_UNIT = torch.finfo(torch.float32).eps / 2


@dataclass(frozen=True)
class MergeCheck:
    """What two logits of one model may differ by."""

    dtype: torch.dtype
    """Of the merged weights."""
    scale: float
    """Root mean square of the logits."""
    perturbed: Callable[[float], Tensor]
    """Returns the merged model's logits after every weight moved by ± that much, relative."""

    def refuse_disagreement(self, difference: float, effect: float, name: str) -> None:
        """Refuse a merge that lost the adapter or is not equivalent to it.

        Only the rounding of the merged weights may differ: a relative error of at most the unit
        roundoff u of their dtype, in random directions, which reaches the logits as one or two u; 8
        are allowed. Float32 arithmetic adds about twenty units of its own roundoff; 256 are
        allowed. A model may be worse conditioned than that. What a rounding does to its logits is
        then measured: every weight is moved by u, and 8 times the effect is allowed. A merge that
        forgets a layer moves weights by the adapter, not by u. Within this, at most a quarter of
        the adapter's effect may be lost.

        Args:
            difference: root mean square difference of the logits, merged against unmerged.
            effect: root mean square change of the logits by the adapter.
            name: of the base model.

        Raises:
            AdapterError: the merge is refused; the message says why.
        """
        if effect == 0:
            raise AdapterError(
                f"the adapter changes no logit of {name}, so it is untrained; not merged"
            )
        if not self._is_rounding(difference):
            raise AdapterError(
                f"the merged model is not equivalent to base and adapter (logits differ by "
                f"{difference / self.scale:.1%}); nothing was written. Please report this"
            )
        if difference > effect / 4:
            raise AdapterError(
                f"rounding to {self.dtype} changes the logits by {difference:.2g}, the adapter by "
                f"{effect:.2g}, so most of its effect would be lost; merge with --dtype float32, "
                "or use the adapter with its base"
            )

    def refuse_other_reading(self, difference: float) -> None:
        """Refuse a merge of something else than PEFT reads.

        Args:
            difference: root mean square difference of the logits, merged against PEFT's.

        Raises:
            AdapterError: they differ by more than rounding.
        """
        if not self._is_rounding(difference):
            raise AdapterError(
                f"the merged model is not what PEFT computes from this base and adapter (logits "
                f"differ by {difference / self.scale:.1%}); nothing was written. Please report this"
            )

    def _is_rounding(self, difference: float) -> bool:
        unit = torch.finfo(self.dtype).eps / 2
        if difference <= (8 * unit + 256 * _FLOAT32_UNIT) * self.scale:
            return True
        still = self.perturbed(0.0)
        # Of its own arithmetic float32 makes some twenty roundings in a row.
        moved = 8 * rms(self.perturbed(unit) - still)
        moved += 32 * rms(self.perturbed(_FLOAT32_UNIT) - still)
        return math.isfinite(moved) and difference <= moved


def peft_logits(
    origin: ModelOrigin, saved: SavedAdapter, base: str, ids: Tensor, head: Head = CAUSAL_LM
) -> Tensor | None:
    """Return the logits that PEFT computes, (1, tokens, vocabulary) float32; None if it cannot.

    Args:
        origin: where the base's files are.
        saved: the adapter.
        base: `original`, or `dequantized`: weights that PEFT has not.
        ids: (1, tokens).
        head: of the model.
    """
    folder = Path(origin.path)
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    if base != "original" or find_spec("peft") is None or not files:
        return None
    stated = json.loads((folder / "config.json").read_text("utf-8"))
    if "quantization_config" in stated or not (saved.folder / WEIGHTS).exists():
        return None
    # As float32, of files that hold two bytes a weight or four.
    if 2 * sum(file.stat().st_size for file in files) > psutil.virtual_memory().available / 2:
        return None
    return _by_peft(folder, saved.folder, ids, head, origin.kept_layers)


@torch.no_grad()
def _by_peft(
    folder: Path, adapter: Path, ids: Tensor, head: Head, kept: tuple[int, ...] | None
) -> Tensor | None:
    # PEFT is none of Etude's dependencies.
    wrapper: Any = import_module("peft").PeftModel
    with no_bars(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        auto: Any = head.auto_class
        config = head.configure(import_module("transformers").AutoConfig.from_pretrained(folder))
        plain = auto.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True
        )
        if kept is not None:
            cut_module(plain, kept)
        _resize(plain, read_adapter(adapter))
        try:
            model = wrapper.from_pretrained(plain, str(adapter)).eval()
        except (ValueError, TypeError, KeyError, RuntimeError):
            return None  # an option that this PEFT does not know
        logits = model(input_ids=ids, **_no_cache(plain)).logits
    del model, plain
    gc.collect()
    return logits


def _resize(model: Any, saved: SavedAdapter) -> None:
    """Give a model of transformers' rows for the tokens that the adapter has rows for."""
    needed = 1 + max((number for ids in saved.options.tokens.values() for number in ids), default=0)
    if needed > len(model.get_input_embeddings().weight):
        with cast("Any", torch.random).fork_rng([]):
            model.resize_token_embeddings(needed)


@torch.no_grad()
def float32_logits(model: Any, ids: Tensor) -> Tensor:
    """Return the logits of `ids`, (1, tokens, vocabulary), float32, computed in float32.

    Of a classifier, (1, classes) or (1, tokens, classes).

    In 16-bit arithmetic two equal models of 30 layers differ by a percent or two, more than many
    adapters do. So each layer's weights are float32 only while it computes: the whole model is
    never in memory in float32.
    """
    hooks = [
        hook
        for module in _computing_modules(model)
        for hook in (
            module.register_forward_pre_hook(_widen),
            module.register_forward_hook(_narrow, always_call=True),
        )
    ]
    try:
        return model.eval()(input_ids=ids, **_no_cache(model)).logits
    finally:
        for hook in hooks:
            hook.remove()


def _no_cache(model: Any) -> dict[str, bool]:
    """Return the option that keeps no cache; encoders have none, and do not know it."""
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}


def _computing_modules(module: nn.Module) -> list[nn.Module]:
    """Return the modules that own weights; an adapted layer and its base count as one."""
    if isinstance(module, AdaptedLayer | AdaptedExperts | ModuleToSave | QuantLinear):
        return [module]
    own: list[nn.Module] = [module] if list(module.parameters(recurse=False)) else []
    return own + [found for child in module.children() for found in _computing_modules(child)]


def _widen(module: nn.Module, arguments: Any) -> None:
    del arguments
    parts = list(module.modules())
    narrow: list[tuple[Any, str, Any]] = []
    for part in cast("list[Any]", list(parts)):
        if isinstance(part, QuantLinear):
            narrow.append((part, "compute_dtype", part.compute_dtype))
            narrow.append((part, "bias", part.bias))
            part.compute_dtype = torch.float32
            part.bias = None if part.bias is None else part.bias.float()
        for parameter in part.parameters(recurse=False):
            narrow.append((parameter, "data", parameter.data))
            parameter.data = parameter.data.float()
    cast("Any", module).narrow = narrow


def _narrow(module: Any, arguments: Any, output: Any) -> None:
    del arguments, output
    for owner, attribute, value in module.narrow:
        setattr(owner, attribute, value)
    del module.narrow


def rms(difference: Tensor) -> float:
    """Return the root mean square."""
    return math.sqrt(float(difference.double().square().mean()))
