# expect: wrong answer: not finite
import torch


def token_logprobs(logits, tokens):
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.exp().sum(-1).log()
