"""Tests of Quantise the scales, too."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=2e-6, atol=1e-9))


def dynamic() -> torch.Tensor:
    """Return levels in seven decades, twice as many in each as in the one below."""
    above = [
        10.0 ** (decade - 6) * (0.1 + 0.9 * (step + 0.5) / 2**decade)
        for decade in range(7)
        for step in range(2**decade)
    ]
    return torch.tensor(sorted([-x for x in above] + above + [0.0, 1.0]))


DYNAMIC = dynamic()
EVEN = torch.arange(-128, 128) / 128


def clear(make, count: int, group_size: int = 256, levels: torch.Tensor = DYNAMIC):
    """Return arguments with the first of `make`'s scales of which none is close to a middle."""
    middles = ((levels[:-1] + levels[1:]) / 2).double()
    while True:
        scales = make()
        centred = (scales - scales.double().mean().float()).double()
        near = False
        for group in centred.split(group_size):
            scaled = group / group.abs().max().clamp(min=1e-300)
            near |= bool(((scaled[:, None] - middles).abs() < 3e-6 * middles.abs()).any())
        if not near:
            return scales, levels, count, group_size


def maxima(rng: Rng, blocks: int, size: int = 64, scale: float = 0.02):
    """Return what makes scales as they occur: the largest of `size` normal numbers."""
    return lambda: rng.randn(blocks, size, scale=scale).abs().amax(1)


@suite.visible("six scales in groups of four")
def six(rng: Rng):
    return clear(maxima(rng, 6), 384, 4, EVEN)


@suite.visible("one group")
def one_group_shown(rng: Rng):
    return clear(maxima(rng, 5), 320)


@suite.visible("no scales", raises=ValueError)
def none_shown(rng: Rng):
    return torch.empty(0), DYNAMIC, 1, 256


@suite.hidden("a layer", note="Groups of 256 scales, as in QLoRA.")
def layer(rng: Rng):
    return clear(maxima(rng, 1024), 65536)


@suite.hidden(
    "one scale",
    edge="one scale",
    note="A single scale is its own mean: nothing is left to quantise.",
)
def one(rng: Rng):
    return rng.uniform(0.1, 3, (1,)), DYNAMIC, 17, 256


@suite.hidden(
    "equal scales",
    edge="equal scales",
    note="All differences are 0, and 0 / 0 is NaN. Their codes are those of the level 0.",
)
def equal(rng: Rng):
    return torch.full((600,), rng.number(0.1, 3)), DYNAMIC, 600 * 64, 256


@suite.hidden(
    "one group without differences",
    edge="equal scales",
    note="A group may have the scale 0 while others have not.",
)
def flat_group(rng: Rng):
    # Whole numbers with a whole mean, 8 throughout in the first group.
    step = rng.integers(1, 7, (8,)).float()
    return torch.cat([torch.full((8,), 8.0), 8 + step, 8 - step]), EVEN, 1536, 8


@suite.hidden(
    "a short last group",
    edge="a short last group",
    note="The last group has a scale of its own; what fills it up is not part of the answer.",
)
def ragged(rng: Rng):
    return clear(maxima(rng, 300), 300 * 64 - 20)


@suite.hidden("a group larger than all", edge="a short last group", note="One group is fine.")
def larger(rng: Rng):
    return clear(maxima(rng, 40), 2560, 10_000)


@suite.hidden(
    "an odd count",
    edge="an odd count",
    concept="counting bits",
    note="Two codes share a byte; the last byte is stored whole.",
)
def odd(rng: Rng):
    return clear(maxima(rng, 3), 2 * rng.integer(65, 90) + 1)


@suite.hidden("few weights", concept="counting bits", note="The mean is stored, too: 32 bits.")
def few(rng: Rng):
    return clear(maxima(rng, 2), rng.integer(3, 20))


@suite.hidden("other groups", concept="counting bits", note="Count what is stored, for any sizes.")
def other_groups(rng: Rng):
    return clear(maxima(rng, 500), 16_000, 32)


@suite.hidden("groups of one", note="Every difference is its own scale: the level is 1 or -1.")
def groups_of_one(rng: Rng):
    return clear(maxima(rng, 7), 448, 1)


@suite.hidden(
    "a large outlier",
    concept="groups",
    note="An outlier moves the mean of all, but the scale of its own group only.",
)
def outlier(rng: Rng):
    make = maxima(rng, 96)

    def scales():
        made = make()
        made[40] = 1.5
        return made

    return clear(scales, 6144, 32)


@suite.hidden(
    "scales that hardly differ",
    concept="centring",
    note="Without the mean there would be one or two codes for all.",
)
def narrow(rng: Rng):
    return clear(lambda: 5 + rng.randn(300, scale=0.01), 19_200, 64)


@suite.hidden(
    "scales that differ in their last digits",
    concept="precision",
    note="Sum up in float64: a float32 mean may be off in its last digit, and codes near 0 move.",
)
def precise(rng: Rng):
    # Near 1 float32 has steps of 2^-23; a mean that is one step off moves every difference.
    def scales():
        while True:
            steps = rng.integers(0, 60, (500,)).float() * 2.0**-23
            made = 1 + torch.cat([steps, torch.tensor([0.75, -0.5, 0.25])])
            if made.mean() != made.double().mean().float():
                return made

    return clear(scales, 32_192, 512)


@suite.hidden(
    "many scales of different size",
    note="A restored scale may be below 0. Leave it as it is.",
)
def different(rng: Rng):
    return clear(lambda: rng.uniform(0, 1, (2500,)) ** 4 * 100, 160_000)


@suite.hidden(
    "tiny scales",
    concept="centring",
    note="A small number added to a scale, to keep 0 / 0 away, changes the codes.",
)
def tiny(rng: Rng):
    return clear(maxima(rng, 200, scale=1e-7), 12_800)


@suite.hidden(
    "in the middle between two levels",
    concept="ties",
    note="In the middle it is the smaller index.",
)
def middles(rng: Rng):
    half = torch.arange(0.5, 100)[rng.permutation(99)]
    scales = 4096 + torch.cat([half, torch.tensor([128.0]), -half, torch.tensor([-128.0])])
    return scales, EVEN, 12_800, 256


@suite.hidden("blocks of zeros", note="A block of zeros has the scale 0, below the mean.")
def zeros(rng: Rng):
    make = maxima(rng, 80)

    def scales():
        made = make()
        made[::7] = 0
        return made

    return clear(scales, 5120, 40)


@suite.hidden("no weights", raises=ValueError, note="Bits for each of no weights are 0 / 0.")
def no_weights(rng: Rng):
    return rng.uniform(0, 1, (3,)), DYNAMIC, 0, 256


@suite.hidden("groups of none", raises=ValueError, note="A group has a scale or more.")
def empty_groups(rng: Rng):
    return rng.uniform(0, 1, (3,)), DYNAMIC, 192, 0


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    blocks = rng.integer(2, 700)
    return clear(maxima(rng, blocks), blocks * 64 - rng.integer(0, 64), rng.integer(2, 300))
