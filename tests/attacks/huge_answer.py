"""Strategy: answer with more than the judge can hold.

Surface: result channel
Expect: output limit | memory limit | time limit
"""

import torch


def create_dataset(features, labels):
    return torch.zeros(30_000_000)
