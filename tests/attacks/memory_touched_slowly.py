"""Strategy: many small tensors, each kept.

Surface: memory
Expect: memory limit | time limit
"""

import torch

hoard = []
while True:
    hoard.append(torch.ones(1 << 18))
