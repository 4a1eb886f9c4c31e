# expect: wrong answer: values
# Normalises over dimension 1, which is right only for logits of two dimensions.
import torch


def token_logprobs(logits, tokens):
    normal = torch.log_softmax(logits, dim=min(1, logits.dim() - 1))
    return normal.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
