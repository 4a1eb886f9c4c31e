"""A CUDA device that is not there: its tensors hold numbers of the processor and call themselves
`cuda:0`.

What a GPU refuses is refused here: an operation on tensors of both devices, a CPU generator that
fills a tensor of the GPU, memory handed to numpy. So a run that ends on this device makes no tensor
in the wrong place, whatever the machine; kernels and their speed are not what it can show. The
numbers are those of plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda", 0)
_aten = torch.ops.aten

# These copy between devices.
_COPIES = {_aten.copy_.default, _aten._to_copy.default}
# These take indices from either device.
_INDEXING = {
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten._unsafe_index.Tensor,
    _aten._index_put_impl_.default,
}


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated GPU."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> SimulatedTensor:
        # For C++ it lies on the CPU, where C++ makes the scalars that it needs.
        # In inference mode it could be no view of a wrapper that was made outside.
        with torch.inference_mode(mode=False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                elem.size(),
                strides=elem.stride(),
                storage_offset=elem.storage_offset(),
                dtype=elem.dtype,
                device="cpu",
            )
        made.elem = elem
        return made

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"SimulatedTensor({self.elem!r})"

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    def untyped_storage(self) -> Any:
        return self.elem.untyped_storage()

    def tolist(self) -> Any:
        return self.elem.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> SimulatedTensor:
        copy = SimulatedTensor(self.elem.detach().clone())
        memo[id(self)] = copy.requires_grad_(self.requires_grad)
        return copy

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            # PyTorch's own would make its causal mask where C++ takes the queries to be.
            return _attention(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.cpu:
                return _to(args[0], "cpu")
            if func is torch.Tensor.to:
                return _to(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Makes tensors on the simulated GPU where `cuda` is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat, _ = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    here = [one for one in tensors if isinstance(one, SimulatedTensor)]
    wanted = kwargs.get("device")
    wanted = None if wanted is None else torch.device(wanted)
    to_gpu = bool(here) if wanted is None else wanted.type == "cuda"
    if not here and not to_gpu:
        return func(*args, **kwargs)
    # The gradient of indexing is put into zeros that C++ makes, where it takes the gradient to be.
    if here and func not in (*_COPIES, _aten.index_put.default):
        _refuse_other_devices(func, args, tensors, flat)
    plain_args, plain_kwargs = tree_map(_unwrapped, (args, kwargs))
    if wanted is not None and wanted.type == "cuda":
        plain_kwargs["device"] = torch.device("cpu")
        plain_kwargs.pop("pin_memory", None)
    out = func(*plain_args, **plain_kwargs)
    if func is _aten.copy_.default:
        return args[0]
    if not to_gpu:
        return out
    if func is _aten._to_copy.default:
        return SimulatedTensor(out)
    wrapped = tree_map(
        lambda one: SimulatedTensor(one) if isinstance(one, torch.Tensor) else one, out
    )
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if here else wrapped


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return softmax(scale · q kᵀ + mask) v: (..., T, d) each, heads of keys repeated if asked."""
    assert dropout_p == 0.0
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        else:
            scores = scores + attn_mask
    return scores.softmax(-1) @ value


def _to(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Do as `x.to(...)`, whose C++ takes both devices for the CPU."""
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for one in args:
        if isinstance(one, torch.Tensor):
            device, dtype = one.device, one.dtype
        elif isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, torch.device | str):
            device = one
    device = x.device if device is None else torch.device(device)
    dtype = dtype or x.dtype
    if device == x.device and dtype == x.dtype and not kwargs.get("copy"):
        return x
    return _aten._to_copy.default(x, dtype=dtype, device=device)


def _unwrapped(one: Any) -> Any:
    return one.elem if isinstance(one, SimulatedTensor) else one


def _refuse_other_devices(func: Any, args: Any, tensors: list[Any], flat: list[Any]) -> None:
    others = [t for t in tensors if not isinstance(t, SimulatedTensor) and t.dim() > 0]
    if others and not (func in _INDEXING and isinstance(args[0], SimulatedTensor)):
        raise RuntimeError(f"{func}: expected all tensors to be on one device, cuda:0 and cpu came")
    if any(isinstance(one, torch.Generator) and one.device.type == "cpu" for one in flat):
        raise RuntimeError(f"{func}: expected a 'cuda' device type for generator but found 'cpu'")


def _made_here(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return `torch.tensor` or its like, which no dispatch mode sees."""

    def made(value: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        gpu = device is not None and torch.device(device).type == "cuda"
        if isinstance(value, SimulatedTensor):
            return value.to(**options)
        plain = make(value, device=None if gpu else device, **options)
        return SimulatedTensor(plain) if gpu else plain

    return made


class _AtOnce:
    """A pool whose work is done where it is submitted: modes are a thread's own."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Any:
        value = work(*args)
        return type("Done", (), {"result": staticmethod(lambda: value)})

    def shutdown(self, **_: Any) -> None:
        pass


PEAK = 123_456_789


@contextmanager
def simulated_gpu() -> Generator[None]:
    """Within, `model.device: auto` is the simulated GPU."""
    with pytest.MonkeyPatch.context() as patch, _Factories():
        patch.setattr("etude.tuning.placement.choose_device", lambda _: GPU)
        patch.setattr("etude.tuning.models.load.ThreadPoolExecutor", _AtOnce)
        for name in ("tensor", "as_tensor"):
            patch.setattr(torch, name, _made_here(getattr(torch, name)))
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "get_device_name", lambda _: "simulated")
        patch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 40, 1 << 40))
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda _: PEAK)
        yield
