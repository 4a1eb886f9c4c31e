# expect: runtime error
# The second pass runs on into the graph that made the inputs, which is then walked twice.
import torch


class Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, *inputs):
        ctx.function = function
        ctx.state = torch.get_rng_state()
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(ctx.state)
            output = ctx.function(*ctx.saved_tensors)
        torch.autograd.backward(output, gradient)
        return None, *(value.grad for value in ctx.saved_tensors)


def recompute(function, *inputs):
    return Again.apply(function, *inputs)
