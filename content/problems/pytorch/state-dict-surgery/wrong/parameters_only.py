# expect: wrong answer: shape
# Forgets the buffers.
import torch


def load_checkpoint(model, checkpoint, renames):
    places, keys = dict(model.named_parameters(remove_duplicate=False)), {}
    for key in checkpoint:
        name = next((new + key[len(old) :] for old, new in renames if key.startswith(old)), key)
        if name in keys:
            raise ValueError("two keys")
        keys[name] = key
    values, first = {}, {}
    for name, place in places.items():
        if name in keys:
            values[name] = checkpoint[keys[name]].to(place.dtype)
            if values[name].shape != place.shape:
                raise ValueError("shape")
            if not torch.equal(values[first.setdefault(id(place), name)], values[name]):
                raise ValueError("tied")
    with torch.no_grad():
        for name, value in values.items():
            places[name].copy_(value)
    missing = [name for name, place in places.items() if id(place) not in first]
    unexpected = [key for name, key in keys.items() if name not in places]
    return {"loaded": list(values), "missing": missing, "unexpected": unexpected}
