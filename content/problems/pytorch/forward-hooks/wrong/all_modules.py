# expect: wrong answer: shape
# Notes containers too.
import torch


def record_activations(model, inputs):
    records, handles = [], []
    for name, module in model.named_modules():
        handles.append(
            module.register_forward_hook(
                lambda m, i, o, name=name: records.append((name, tuple(o.shape), o.mean().item()))
            )
        )
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return records
