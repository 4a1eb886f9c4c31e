# expect: wrong answer: values
# Without finally an error leaves the hooks behind.
import torch


def record_activations(model, inputs):
    records, handles = [], []
    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(
                module.register_forward_hook(
                    lambda m, i, o, name=name: records.append(
                        (name, tuple(o.shape), o.mean().item())
                    )
                )
            )
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return records
