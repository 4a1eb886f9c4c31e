# expect: wrong answer: values
# Never removes its hooks: each look makes the model slower, and every call is noted for ever.
import torch


def record_activations(model, inputs):
    records = []

    def hook_of(name):
        def hook(module, args, output):
            records.append((name, tuple(output.shape), output.mean().item()))

        return hook

    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(hook_of(name))
    with torch.no_grad():
        model(inputs)
    return records
