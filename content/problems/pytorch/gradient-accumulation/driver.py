import torch
from torch import nn


class Model(nn.Module):
    """A small model of tokens that notes what is done with it."""

    def __init__(self, vocabulary):
        super().__init__()
        torch.manual_seed(2)
        self.embed = nn.Embedding(vocabulary, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, vocabulary)
        self.waiting = 0
        self.most_waiting = 0
        self.sizes = []

    def forward(self, inputs):
        self.sizes.append(list(inputs.shape))
        logits = self.head(torch.tanh(self.mix(self.embed(inputs))))
        if logits.requires_grad:
            logits.register_hook(self._arrived)
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
        return logits

    def _arrived(self, gradient):
        self.waiting -= 1


def drive(submission, vocabulary, batches, stale):
    model = Model(vocabulary)
    if batches and isinstance(stale, torch.Tensor):
        model = model.to(stale.dtype)
    for parameter in model.parameters():
        if stale is not None:
            parameter.grad = torch.full_like(parameter, float(stale))
    loss = submission.accumulate(model, batches)
    labelled = [inputs.shape for inputs, labels in batches if (labels != -100).any()]
    seen = [list(inputs.shape) for inputs, _ in batches]
    return {
        "loss": loss,
        "gradients": {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for name, parameter in model.named_parameters()
        },
        "one micro-batch at a time, once each": len(labelled) <= len(model.sizes) <= len(batches)
        and all(size in seen for size in model.sizes),
        # Unlabelled micro-batches may be run and never get a gradient.
        "graphs waiting at once are few": model.most_waiting <= 1 + len(batches) - len(labelled),
    }
