import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        return x + self.inner(self.norm(x))


class Shared(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.step = nn.Linear(width, width)
        self.squash = nn.Tanh()

    def forward(self, x):
        for _ in range(3):
            x = self.squash(self.step(x))
        return x


class Disordered(nn.Module):
    """Runs its modules in another order than it registers them, and one of them never."""

    def __init__(self, width):
        super().__init__()
        self.last = nn.Linear(width, 2)
        self.unused = nn.Linear(width, width)
        self.first = nn.Linear(width, width)

    def forward(self, x):
        return self.last(self.first(x))


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("this module always fails")


def build(kind, width):
    torch.manual_seed(11)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))
    if kind == "nested":
        return nn.Sequential(Residual(width), Residual(width), nn.Linear(width, 2))
    if kind == "dropout":
        return nn.Sequential(nn.Linear(width, 16), nn.Dropout(0.5), nn.Linear(16, 4))
    if kind == "failing":
        return nn.Sequential(nn.Linear(width, 5), Failing(), nn.Linear(5, 2))
    return {"leaf": lambda w: nn.Linear(w, 5), "shared": Shared, "disordered": Disordered}[kind](
        width
    )


def drive(submission, kind, inputs, training):
    model = build(kind, inputs.shape[-1]).to(inputs.dtype).train(training)
    leaf = next(module for module in model.modules() if not list(module.children()))
    recording = []
    # A hook of somebody else: it must stay, and it sees whether gradients are recorded.
    leaf.register_forward_hook(lambda *_: recording.append(torch.is_grad_enabled()))
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    try:
        records = submission.record_activations(model, inputs)
    except RuntimeError:
        if kind != "failing":
            raise
        records = "a RuntimeError"
    hooks = sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )
    return {
        "records": records,
        "hooks left, one of them not yours": hooks,
        "the other's hook saw gradients being recorded": recording,
        "modes are kept": [module.training for module in model.modules()] == modes,
        "gradients are recorded afterwards": torch.is_grad_enabled(),
    }
