"""Probe of a loaded model: do its samples, packed in one row, keep the logits they have alone?

Packing assumes that every layer uses the attention function of `packed_attention` and computes
everything else position by position. Models with states or convolutions along the row, or with
an attention of their own, do not, and nothing in their configuration says so. So it is tried, on
two short samples of random tokens:

    leak       The first sample's embeddings are NaN. Whatever of them reaches the second one's
               logits makes these NaN: no tolerance is involved, in any dtype.
    logits     The second sample's logits are those it has alone, by the model's own code, up to
               rounding. This finds positions that are not the sample's own, and masks that the
               packed attention does not know.
    inputs     Masks and numbers that the model passes to its attention and `packed_attention` does
               not compute with, windows and chunks longer than the samples among them.
    rotations  Rotary angles that depend on the longest sample of a row (dynamic NTK, LongRoPE) have
               no effect on short samples either; the embedding alone is asked for both.

It costs two forward passes of about 30 tokens, one or two more where the logits are not the same
to the last bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from etude.core.errors import innermost_reason
from etude.tuning.adapters.targets import named_modules
from etude.tuning.data.batch import Layout
from etude.tuning.fusion.forward_probe import PROBE_TOKENS, random_tokens, relative_difference
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.packed_attention import unused_inputs
from etude.tuning.models.foreign_code import foreign_code
from etude.tuning.quant.int8 import Int8Linear

_LENGTHS = [PROBE_TOKENS, 19]
"""Tokens of the two samples."""

_KERNELS = 8.0
"""Bound of the logits' relative difference between packed rows and a model's own code, as a
multiple of ε √(2 L). They are the same sums by other kernels: at most 5.3 was measured (SmolLM2,
fused layers, float32; 1.7 in bfloat16), and 0.3 to 3 on small random models of 40 architectures."""

_FINE = 2.0**-20
"""Resolution up to which that bound finds anything: 8 ε is a millionth in float32, but a sixteenth
in bfloat16, where packed rows are compared with packed rows as well."""

_found: WeakKeyDictionary[nn.Module, dict[int | None, str | None]] = WeakKeyDictionary()


def packs_exactly(model: Any, longest: int | None = None) -> str | None:
    """Return why samples packed in one row would not be computed as alone; None if they would.

    The model is left as it is; the answer is kept, so that asking again costs nothing.

    Args:
        model: a causal language model, with or without adapters.
        longest: tokens of the longest sample there may be; None: the model's context.
    """
    known = _found.setdefault(model, {})
    if longest not in known:
        training = bool(model.training)
        model.eval()
        try:
            with torch.no_grad(), foreign_code(model):
                known[longest] = _mixed_rotations(model, longest) or _mixed_samples(model)
        finally:
            model.train(training)
    return known[longest]


def causal_layout(model: Any, *, packing: bool, longest: int | None = None) -> Layout:
    """Return the layout of a causal language model's samples: packed only where that is exact.

    Args:
        model: the model.
        packing: whether packed rows are wanted.
        longest: see `packs_exactly`.
    """
    if not packing:
        return Layout(packed=False)
    why = packs_exactly(model, longest)
    if why is None:
        return Layout()
    # Padded to a longer one, a sample's angles would be those of the longer one as well.
    alone = _mixed_rotations(model, longest) is not None
    return Layout(packed=False, alone=alone, unpacked_because=why)


def _mixed_samples(model: Any) -> str | None:
    """Compare a packed sample with the same sample alone."""
    row = random_tokens(model, sum(_LENGTHS))
    first, second = row[: _LENGTHS[0]], row[_LENGTHS[0] :]
    alone = _logits(model, second[None])
    try:
        with _first_is_nan(model, len(first)), unused_inputs() as unused:
            packed = _packed(model, row, len(first))
    except Exception as error:
        # The model's own code, called in a way it may not support: any failure means just that.
        return f"{type(model).__name__} does not take packed rows ({innermost_reason(error)})"
    if bool(packed.isnan().any()) and not bool(alone.isnan().any()):
        return f"in {type(model).__name__} the samples of a row see each other"
    if unused:
        return (
            f"the attention of {type(model).__name__} computes with {', '.join(sorted(unused))}, "
            "which packed rows do not have"
        )
    resolution = _resolution(model, alone.dtype)
    # A decoder's 2 L additions to the residual stream round it independently of each other.
    layers = int(getattr(model.config, "num_hidden_layers", None) or 1)
    rounding = resolution * math.sqrt(2 * layers)
    if _difference(packed, alone) <= _KERNELS * rounding and resolution <= _FINE:
        return None
    # Again with numbers for the first sample, whose size some products round by, and with the
    # second one packed by itself: by the same code, so that a coarse dtype hides no position.
    finite, single = _packed(model, row, len(first)), _packed(model, second, 0)
    difference = max(_difference(finite, alone) / _KERNELS, _difference(finite, single))
    if difference <= rounding:
        return None
    return (
        f"the logits of {type(model).__name__} for a packed sample differ by "
        f"{_difference(finite, alone):.1%} from those for the same sample alone"
    )


def _mixed_rotations(model: Any, longest: int | None) -> str | None:
    """Return a reason if a rotary embedding's angles depend on the row's largest position."""
    last = longest or getattr(model.config, "max_position_embeddings", None)
    if not isinstance(last, int) or last <= _LENGTHS[0]:
        return None
    for _, module in named_modules(model):
        types = getattr(module, "rope_type", None)
        if not isinstance(types, str | dict) or not list(module.buffers(recurse=False)):
            continue
        layers = list(cast("dict[str, str]", types)) if isinstance(types, dict) else [None]
        for layer in layers:
            short, long = (_angles(module, layer, end) for end in (_LENGTHS[0], last))
            if short is not None and long is not None and not torch.equal(short, long):
                return (
                    "the rotary angles of a sample depend on the longest sample of its row "
                    f"({types if layer is None else cast('dict[str, str]', types)[layer]} RoPE)"
                )
    return None


def _angles(module: nn.Module, layer: str | None, length: int) -> Tensor | None:
    """Return the cosines and sines of the first positions in a row that has `length` of them."""
    twin: Any = copy.deepcopy(module)  # dynamic embeddings keep what they have seen
    device = next(iter(module.buffers(recurse=False))).device
    positions = torch.tensor([[0, 1, 2, length - 1]], device=device)
    x = torch.zeros(1, 4, 1, device=device)
    try:
        found = twin(x, positions) if layer is None else twin(x, positions, layer)
        parts = cast("list[Tensor]", [found] if isinstance(found, Tensor) else list(found))
        return torch.stack([torch.view_as_real(p) if p.is_complex() else p for p in parts])[
            :, 0, :3
        ]
    except Exception:
        # Not a rotary embedding of transformers' form; the comparison of logits has to do.
        return None


def _packed(model: Any, row: Tensor, start: int) -> Tensor:
    """Return the logits of a packed sample, which begins at `start`, after another one or first."""
    lengths = [start, len(row) - start] if start else [len(row)]
    positions = torch.cat([torch.arange(n, device=row.device) for n in lengths])[None]
    with row_layout(model, Layout()):
        logits = _logits(model, row[None], position_ids=positions, segment_lengths=lengths)
    return logits[start:]


def _logits(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    """Return the logits of a single row, in their dtype."""
    return cast("Tensor", model(input_ids=ids, use_cache=False, **inputs).logits)[0]


def _difference(values: Tensor, reference: Tensor) -> float:
    """Return ‖values − reference‖ / ‖reference − its mean‖, with the mean over each position.

    A constant added to all logits of a position changes no probability.
    """
    spread = reference - reference.mean(dim=-1, keepdim=True)
    return relative_difference(values, reference, spread)


def _resolution(model: Any, dtype: torch.dtype) -> float:
    """Return the coarsest unit of rounding in the model's products, relative.

    That of the weights' dtypes, of autocast's, or of 8-bit rows: 7 bits.
    """
    device = next(iter(model.parameters())).device.type
    found = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    if torch.is_autocast_enabled(device):
        found.append(torch.get_autocast_dtype(device))
    coarsest = max(torch.finfo(one).eps for one in {*found, dtype})
    rounds = any(isinstance(one, Int8Linear) and one.computes_int8 for one in model.modules())
    return max(coarsest, 2.0**-7) if rounds else coarsest


@contextmanager
def _first_is_nan(model: Any, length: int) -> Generator[None]:
    """Context manager: the embeddings of the first `length` tokens of a row are NaN."""

    def spoil(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        del module, given
        spoilt = output.clone()
        spoilt[:, :length] = math.nan
        return spoilt

    hook = model.get_input_embeddings().register_forward_hook(spoil)
    try:
        yield
    finally:
        hook.remove()
