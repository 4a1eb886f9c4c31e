import torch


def tensors(value):
    if isinstance(value, torch.Tensor):
        return 1
    if isinstance(value, (list, tuple)):
        return sum(map(tensors, value))
    return sum(map(tensors, value.values())) if isinstance(value, dict) else 0


def drive(submission, gate, up, wanted, arrived, first_weights):
    function = submission.SwiGLU
    # The same memory without the mark, so that the arguments themselves stay as they are.
    inputs = [
        value.detach().requires_grad_(want) for value, want in zip((gate, up), wanted, strict=True)
    ]
    leaves = [value for value in inputs if value.requires_grad]
    arrived = arrived.detach().requires_grad_()
    kept = []

    def pack(value):
        kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = function.apply(*inputs)
    attributes = tensors(getattr(result.grad_fn, "__dict__", {}))
    first = torch.autograd.grad(result, leaves, arrived, create_graph=True)
    total = sum(
        (gradient * weight).sum() for gradient, weight in zip(first, first_weights, strict=False)
    )
    total.backward()
    return {
        "is a Function": isinstance(function, type)
        and issubclass(function, torch.autograd.Function),
        "result": result.detach(),
        "gradients": [gradient.detach() for gradient in first],
        # Without a path back a gradient is None: that of `up` alone by itself is 0.
        "second gradients": [
            torch.zeros_like(value) if value.grad is None else value.grad
            for value in [*leaves, arrived]
        ],
        "keeps its two inputs only": sum(kept) <= 2 * gate.numel() and attributes == 0,
    }
