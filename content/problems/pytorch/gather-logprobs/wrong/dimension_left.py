# expect: wrong answer: shape
import torch


def token_logprobs(logits, tokens):
    return torch.log_softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1))
