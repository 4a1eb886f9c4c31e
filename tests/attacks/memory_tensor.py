"""Strategy: one tensor larger than the machine.

Surface: memory
Expect: memory limit
"""

import torch

torch.zeros(1 << 40)
