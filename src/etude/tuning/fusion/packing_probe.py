"""Probe of a loaded model: do its samples, packed in one row, keep the outputs they have alone?

Packing assumes that every layer uses the attention function of `packed_attention` and computes
everything else position by position. Models with states or convolutions along the row, or with
an attention of their own, do not, and nothing in their configuration says so. So it is tried, on
two short samples of random tokens:

    leak       The first sample's embeddings are NaN. Whatever of them reaches the second one's
               outputs makes these NaN: no tolerance is involved, in any dtype.
    outputs    The second sample's outputs are those it has alone, by the model's own code, up to
               rounding. This finds positions that are not the sample's own, masks that the packed
               attention does not know, and heads that read another token.
    inputs     Masks and numbers that the model passes to its attention and `packed_attention` does
               not compute with, windows and chunks longer than the samples among them.
    rotations  Rotary angles that depend on the longest sample of a row (dynamic NTK, LongRoPE) have
               no effect on short samples either; the embedding alone is asked for both.

Outputs are logits of the next token (`text`), logits of each token, or states in a model without
a head (`tokens`), or class logits of each sample (`samples`).

It costs two forward passes of about 30 tokens, one or two more where the outputs are not the same
to the last bits; nothing that watches the model sees them (`undisturbed`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from etude.core.errors import innermost_reason
from etude.tuning.adapters.targets import named_modules
from etude.tuning.data.batch import PACKED_ROWS, Layout
from etude.tuning.fusion.forward_probe import PROBE_TOKENS, random_tokens, relative_difference
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.packed_attention import watched_attention
from etude.tuning.fusion.packed_heads import segment_logits
from etude.tuning.fusion.undisturbed import undisturbed
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

_CLASSES = {2: 2**-4, 4: 1e-3, 8: 1e-6}
"""Bound of class logits' relative difference, by the bytes of a number: they are few, each a sum of
some hundred products that cancel, with as many roundings of 2^-8, 2^-24 and 2^-53. The head on
another token, or another position, makes a difference of the size of the logits."""

Outputs = Literal["text", "tokens", "samples"]

_found: WeakKeyDictionary[nn.Module, dict[int | None, str | None]] = WeakKeyDictionary()


def packs_exactly(model: Any, longest: int | None = None, outputs: Outputs = "text") -> str | None:
    """Return why samples packed in one row would not be computed as alone; None if they would.

    The model is left as it is; the answer is kept, so that asking again costs nothing.

    Args:
        model: a model with its head or without, with or without adapters.
        longest: tokens of the longest sample there may be; None: the model's context.
        outputs: what is computed of a sample: logits of the next `text` token, of its `tokens`, or
            of the classes of whole `samples`; without a head, `tokens` are states.
    """
    known = _found.setdefault(model, {})
    if longest not in known:
        with undisturbed(model), foreign_code(model):
            known[longest] = _mixed_rotations(model, longest) or _mixed_samples(model, outputs)
    return known[longest]


def exact_layout(
    model: Any,
    *,
    packing: bool,
    longest: int | None = None,
    outputs: Outputs = "text",
    padded: Layout | None = None,
) -> Layout:
    """Return the layout of a model's samples: packed only where that is exact.

    Args:
        model: the model.
        packing: whether packed rows are wanted.
        longest: see `packs_exactly`.
        outputs: see `packs_exactly`.
        padded: the layout of rows that are not packed.
    """
    padded = padded or Layout(packed=False)
    if not packing:
        return padded
    why = packs_exactly(model, longest, outputs)
    if why is None:
        return PACKED_ROWS
    # Padded to a longer one, a sample's angles would be those of the longer one as well.
    alone = _mixed_rotations(model, longest) is not None
    return replace(padded, alone=alone, unpacked_because=why)


def _mixed_samples(model: Any, outputs: Outputs) -> str | None:
    """Compare a packed sample with the same sample alone."""
    row = random_tokens(model, sum(_LENGTHS))
    first, second = row[: _LENGTHS[0]], row[_LENGTHS[0] :]
    alone = _alone(model, second, outputs)
    try:
        with _first_is_nan(model, len(first)), watched_attention() as seen:
            packed = _packed(model, row, len(first), outputs)
    except Exception as error:
        # The model's own code, called in a way it may not support: any failure means just that.
        return f"{type(model).__name__} does not take packed rows ({innermost_reason(error)})"
    if bool(packed.isnan().any()) and not bool(alone.isnan().any()):
        return f"in {type(model).__name__} the samples of a row see each other"
    if seen.unused:
        return (
            f"the attention of {type(model).__name__} computes with "
            f"{', '.join(sorted(seen.unused))}, which packed rows do not have"
        )
    if packed.shape != alone.shape:
        return f"{type(model).__name__} gives packed samples outputs of another shape"
    resolution = _resolution(model, alone.dtype)
    # A decoder's 2 L additions to the residual stream round it independently of each other.
    layers = int(getattr(model.config, "num_hidden_layers", None) or 1)
    rounding = resolution * math.sqrt(2 * layers)
    fine = resolution <= _FINE
    bound, same_code = _KERNELS * rounding, rounding
    if outputs == "samples":
        rounds = _rounds_rows(model)
        bound = same_code = _CLASSES[2 if rounds else alone.element_size()]
        fine = True
    if _difference(packed, alone, outputs) <= bound and fine:
        return None
    # Again with numbers for the first sample, whose size some products round by, and with the
    # second one packed by itself: by the same code, so that a coarse dtype hides no position.
    finite = _packed(model, row, len(first), outputs)
    single = _packed(model, second, 0, outputs)
    if (
        _difference(finite, alone, outputs) <= bound
        and _difference(finite, single, outputs) <= same_code
    ):
        return None
    return (
        f"the outputs of {type(model).__name__} for a packed sample differ by "
        f"{_difference(finite, alone, outputs):.1%} from those for the same sample alone"
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


def _packed(model: Any, row: Tensor, start: int, outputs: Outputs) -> Tensor:
    """Return the outputs of a packed sample, which begins at `start`, after another or first."""
    lengths = [start, len(row) - start] if start else [len(row)]
    positions = torch.cat([torch.arange(n, device=row.device) for n in lengths])[None]
    packed = {"input_ids": row[None], "position_ids": positions, "segment_lengths": lengths}
    with row_layout(model, PACKED_ROWS):
        if outputs == "samples":
            return segment_logits(model, packed, len(lengths))[-1]
        return _outputs(model, packed, outputs)[start:]


def _alone(model: Any, sample: Tensor, outputs: Outputs) -> Tensor:
    """Return the outputs of a sample by the model's own code."""
    return _outputs(model, {"input_ids": sample[None]}, outputs)


def _outputs(model: Any, inputs: dict[str, Any], outputs: Outputs) -> Tensor:
    """Return the outputs of a single row, in their dtype: (tokens, ...), or of one sample (...)."""
    found = model(**inputs, use_cache=False) if outputs == "text" else model(**inputs)
    return cast("Tensor", found.logits if "logits" in found else found.last_hidden_state)[0]


def _difference(values: Tensor, reference: Tensor, outputs: Outputs) -> float:
    """Return ‖values − reference‖ over the size of the reference.

    That size is ‖reference‖; of logits of the next token, without the mean of each position: a
    constant added to all logits of a position changes no probability.
    """
    spread = reference
    if outputs == "text":
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
    return max(coarsest, 2.0**-7) if _rounds_rows(model) else coarsest


def _rounds_rows(model: Any) -> bool:
    """Return whether products round their inputs to 8 bits."""
    return any(isinstance(one, Int8Linear) and one.computes_int8 for one in model.modules())


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
