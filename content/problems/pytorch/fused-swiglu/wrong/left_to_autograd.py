# expect: wrong answer: values
# Right numbers, but a tensor too many is kept, and this is no Function.
from torch.nn import functional as F


class SwiGLU:
    @staticmethod
    def apply(gate, up):
        return F.silu(gate) * up
