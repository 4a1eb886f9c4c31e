# expect: wrong answer: values
# A small number inside the logarithm hides the infinity, not the error.
import torch


def token_logprobs(logits, tokens):
    chosen = torch.softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1))
    return (chosen.squeeze(-1) + 1e-10).log()
