# expect: wrong answer: shape
# squeeze() without a dimension removes the batch of one as well.
import torch


def token_logprobs(logits, tokens):
    return torch.log_softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze()
