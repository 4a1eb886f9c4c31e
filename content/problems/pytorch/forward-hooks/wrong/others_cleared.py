# expect: wrong answer: values
# Clears all hooks, also those of others.
import torch


def record_activations(model, inputs):
    records = []
    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    for name, module in leaves:
        module.register_forward_hook(
            lambda m, i, o, name=name: records.append((name, tuple(o.shape), o.mean().item()))
        )
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for _, module in leaves:
            module._forward_hooks.clear()
    return records
