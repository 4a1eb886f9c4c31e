import torch


def memories(value):
    """Return the addresses of all tensors in a value, also inside lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage().data_ptr()}
    if isinstance(value, dict):
        value = list(value.values())
    return set().union(*map(memories, value)) if isinstance(value, (list, tuple)) else set()


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
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = function.apply(*inputs)
    kept.append(getattr(result.grad_fn, "__dict__", {}))
    others = memories(kept) - memories(inputs)
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
        "keeps its two inputs only": not others,
    }
