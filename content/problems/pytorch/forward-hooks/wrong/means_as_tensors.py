# expect: wrong answer: type
import torch


def record_activations(model, inputs):
    records, handles = [], []
    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(
                module.register_forward_hook(
                    lambda m, i, o, name=name: records.append((name, tuple(o.shape), o.mean()))
                )
            )
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return records
