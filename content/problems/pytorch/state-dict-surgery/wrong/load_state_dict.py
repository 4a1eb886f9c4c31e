# expect: wrong answer: values | wrong answer: shape | wrong answer: no exception
# PyTorch's own function has written most tensors when it raises its error.
def load_checkpoint(model, checkpoint, renames):
    state = {}
    for key, value in checkpoint.items():
        name = next((new + key[len(old) :] for old, new in renames if key.startswith(old)), key)
        if name in state:
            raise ValueError("two keys")
        state[name] = value
    names = model.state_dict()
    try:
        missing, _ = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    unexpected = [key for key, name in zip(checkpoint, state, strict=True) if name not in names]
    loaded = [name for name in names if name in state]
    return {"loaded": loaded, "missing": list(missing), "unexpected": unexpected}
