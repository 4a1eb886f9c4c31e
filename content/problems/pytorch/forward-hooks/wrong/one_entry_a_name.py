# expect: wrong answer: shape
# A dict keeps only the last call of a module.
import torch


def record_activations(model, inputs):
    records, handles = {}, []

    def hook_of(name):
        def hook(module, args, output):
            records[name] = (name, tuple(output.shape), output.mean().item())

        return hook

    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(module.register_forward_hook(hook_of(name)))
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(records.values())
