# expect: wrong answer: no exception | wrong answer: values
# Of two different tables for one tensor the last is kept.
import torch


def load_checkpoint(model, checkpoint, renames):
    places, keys = model.state_dict(keep_vars=True), {}
    for key in checkpoint:
        name = next((new + key[len(old) :] for old, new in renames if key.startswith(old)), key)
        if name in keys:
            raise ValueError("two keys")
        keys[name] = key
    values, filled = {}, set()
    for name, place in places.items():
        if name in keys:
            values[name] = checkpoint[keys[name]]
            filled.add(id(place))
            if values[name].shape != place.shape:
                raise ValueError("shape")
    with torch.no_grad():
        for name, value in values.items():
            places[name].copy_(value)
    missing = [name for name, place in places.items() if id(place) not in filled]
    unexpected = [key for name, key in keys.items() if name not in places]
    return {"loaded": list(values), "missing": missing, "unexpected": unexpected}
