# expect: wrong answer: values
# All hooks share the loop's variable, which holds the last name by the time they run.
import torch


def record_activations(model, inputs):
    records, handles = [], []
    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(
                module.register_forward_hook(
                    lambda m, i, o: records.append((name, tuple(o.shape), o.mean().item()))
                )
            )
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return records
