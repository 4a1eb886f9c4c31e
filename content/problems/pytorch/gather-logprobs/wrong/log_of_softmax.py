# expect: wrong answer: not finite
# The probability rounds to 0 first, and its logarithm is minus infinity.
import torch


def token_logprobs(logits, tokens):
    chosen = torch.softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1))
    return chosen.squeeze(-1).log()
