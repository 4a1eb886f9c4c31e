"""Tests of Quantise in blocks of four bits."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-6, atol=0.0))

NF4_BELOW = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
NF4_ABOVE = [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
NF4 = torch.tensor(NF4_BELOW + NF4_ABOVE)
# Levels whose middles are exact: halves, quarters, eighths.
DYADIC = torch.tensor([-16.0, -12, -8, -6, -4, -3, -2, 0, 1, 2, 3, 4, 6, 8, 12, 16]) / 16


def clear(weight: torch.Tensor, block_size: int, levels: torch.Tensor = NF4):
    """Return the arguments, with a 0 for each weight that would be close to a middle."""
    flat = weight.reshape(-1).double()
    middles = ((levels[:-1] + levels[1:]) / 2).double()
    for block in flat.split(block_size):
        scaled = block / block.abs().max().clamp(min=1e-300)
        block[(scaled[:, None] - middles).abs().amin(1) < 2e-4] = 0
    return torch.where(flat.reshape(weight.shape) == 0, 0.0, weight), levels, block_size


@suite.visible("two blocks of four")
def two_blocks(rng: Rng):
    return clear(rng.randn(2, 4), 4)


@suite.visible("five weights in blocks of two")
def five(rng: Rng):
    return clear(rng.randn(5), 2)


@suite.visible("an empty block", raises=ValueError)
def empty_block_shown(rng: Rng):
    return rng.randn(4), NF4, 0


@suite.hidden("blocks of 64", note="64 is the block size of QLoRA.")
def usual(rng: Rng):
    return clear(rng.randn(16, 128, scale=0.02), 64)


@suite.hidden("no numbers", edge="no numbers", note="Without weights all three results are empty.")
def none(rng: Rng):
    return torch.empty(0, 3), NF4, 64


@suite.hidden(
    "one number",
    edge="one number",
    note="One weight is its own scale; it shares its byte with the code of 0.",
)
def one(rng: Rng):
    return clear(-rng.uniform(0.1, 5, (1,)), 64)


@suite.hidden(
    "a block of zeros",
    edge="a block of zeros",
    note="0 / 0 is NaN. In a block of zeros every code is that of 0.",
)
def zeros(rng: Rng):
    weight = rng.randn(4, 8)
    weight[1] = weight[3] = 0
    return clear(weight, 8)


@suite.hidden("zeros only", edge="a block of zeros", note="Nothing but zeros, in every block.")
def all_zeros(rng: Rng):
    return torch.zeros(3, 6), NF4, 4


@suite.hidden(
    "an odd count",
    edge="an odd count",
    concept="bit packing",
    note="The last low half is filled with the code of 0, which is not the code 0.",
)
def odd(rng: Rng):
    return clear(rng.randn(3, 7), 7)


@suite.hidden(
    "a short last block",
    edge="a short last block",
    note="The last block has a scale of its own, from the weights that it has.",
)
def ragged(rng: Rng):
    weight = rng.randn(5, 20)
    weight[-1, -4:] *= 0.01
    return clear(weight, 32)


@suite.hidden(
    "a block larger than all",
    edge="a short last block",
    note="A single short block is fine.",
)
def larger(rng: Rng):
    return clear(rng.randn(3, 4), 4096)


@suite.hidden("blocks of one", note="Every weight is its own scale.")
def ones(rng: Rng):
    return clear(rng.randn(2, 5), 1)


@suite.hidden(
    "an odd block size",
    concept="bit packing",
    note="Pack the codes of all blocks as one row: a byte may belong to two blocks.",
)
def odd_blocks(rng: Rng):
    return clear(rng.randn(6, 5), 3)


@suite.hidden(
    "rows that do not fit into blocks",
    note="Blocks run on from one row into the next.",
)
def across_rows(rng: Rng):
    return clear(rng.randn(6, 10) * 10.0 ** torch.arange(-3, 3)[:, None], 8)


@suite.hidden(
    "in the middle between two levels",
    concept="ties",
    note="In the middle it is the smaller index, for negative numbers, too.",
)
def middles(rng: Rng):
    middle = (DYADIC[:-1] + DYADIC[1:]) / 2
    blocks = [torch.cat([middle[rng.permutation(15)], torch.ones(1)]) for _ in range(4)]
    powers = 2.0 ** rng.integers(-8, 9, (4, 1))
    return torch.stack(blocks) * powers, DYADIC, 16


@suite.hidden(
    "just beside the middle",
    concept="ties",
    note="The nearest level, not the next one below or above.",
)
def beside(rng: Rng):
    middle = (NF4[:-1] + NF4[1:]) / 2
    row = torch.cat([middle - 1e-3, middle + 1e-3, torch.tensor([1.0, -1.0])])
    return row[rng.permutation(32)] * 2.0, NF4, 32


@suite.hidden(
    "the largest magnitude is negative",
    note="The scale is a magnitude: positive, and from the most negative weight if that is larger.",
)
def negative(rng: Rng):
    return clear(torch.cat([rng.randn(8, 6), -rng.uniform(5, 9, (8, 1))], 1), 7)


@suite.hidden("other levels", note="Levels are those that were given.")
def other_levels(rng: Rng):
    inner = rng.uniform(0.05, 0.1, (15,)).cumsum(0)
    levels = torch.cat([torch.zeros(1), inner])
    zero = rng.choice([4, 5, 6, 8, 9, 10])
    levels = levels - levels[zero]
    levels = torch.where(levels < 0, levels / -levels[0], levels / levels[-1])
    return clear(rng.randn(9, 21), 16, levels.float())


@suite.hidden("tiny and huge blocks", concept="scales", note="Scales take care of magnitudes.")
def magnitudes(rng: Rng):
    return clear(rng.randn(3, 16) * torch.tensor([[1e-28], [1.0], [1e28]]), 16)


@suite.hidden(
    "bfloat16",
    concept="precision",
    tolerance=Tolerance(rtol=0.004, atol=0.0),
    note="Divide in float32: in bfloat16 the quotient may cross a middle.",
)
def brain(rng: Rng):
    return clear(rng.randn(75, 64, dtype=torch.bfloat16), 32)


@suite.hidden(
    "float16",
    concept="precision",
    tolerance=Tolerance(rtol=0.001, atol=1e-7),
    note="Scales are of float32, the restored weights have the type of the weights.",
)
def half(rng: Rng):
    return clear(rng.randn(8, 40, dtype=torch.float16, scale=0.02), 64)


@suite.hidden(
    "a transposed view",
    concept="memory layout",
    note="The order is that of reshape(-1), not the order in memory.",
)
def strided(rng: Rng):
    weight, levels, size = clear(rng.randn(12, 8), 8)
    return weight.T.contiguous().T, levels, size


@suite.hidden("three dimensions", note="Shapes do not matter but for the restored weights.")
def three_dimensions(rng: Rng):
    return clear(rng.randn(3, 4, 5), 16)


@suite.hidden("a negative block size", raises=ValueError, note="A block has a weight or more.")
def negative_block(rng: Rng):
    return rng.randn(2, 4), NF4, -64


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    weight = rng.randn(rng.integer(1, 30), rng.integer(1, 60), scale=rng.number(0.01, 3))
    return clear(weight, rng.integer(2, 100))
