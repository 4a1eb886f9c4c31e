import torch
from torch import nn


def load_checkpoint(
    model: nn.Module, checkpoint: dict[str, torch.Tensor], renames: list[tuple[str, str]]
) -> dict[str, list[str]]:
    """Copy the checkpoint's values into the model; return what was loaded and what was not."""
    # With keep_vars the model's own tensors, so that tied ones can be told by their identity.
    places = model.state_dict(keep_vars=True)
    keys: dict[str, str] = {}
    for key in checkpoint:
        name = next((new + key[len(old) :] for old, new in renames if key.startswith(old)), key)
        if name in keys:
            raise ValueError(f"{keys[name]!r} and {key!r} are both named {name!r}")
        keys[name] = key

    # Everything is checked before anything is written.
    values: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    for name, place in places.items():
        if name not in keys:
            continue
        value = checkpoint[keys[name]]
        if value.shape != place.shape:
            raise ValueError(f"{name!r} has the shape {value.shape}, the model {place.shape}")
        values[name] = value.to(place.dtype)
        other = first.setdefault(id(place), name)
        if not torch.equal(values[other], values[name]):
            raise ValueError(f"{other!r} and {name!r} are tied, but their values differ")

    with torch.no_grad():
        for name, value in values.items():
            places[name].copy_(value)
    return {
        "loaded": list(values),
        "missing": [name for name, place in places.items() if id(place) not in first],
        "unexpected": [key for name, key in keys.items() if name not in places],
    }
