# expect: wrong answer: values
import torch


def token_logprobs(logits, tokens):
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
