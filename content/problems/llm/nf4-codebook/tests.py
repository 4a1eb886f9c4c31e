"""Tests of The levels of NF4."""

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=0.0, atol=2e-6))


@suite.visible("four bits")
def four(rng: Rng):
    return (4,)


@suite.visible("three bits, a given offset")
def three_shown(rng: Rng):
    return 3, 0.95


@suite.visible("one bit", raises=ValueError)
def one_bit_shown(rng: Rng):
    return (1,)


@suite.hidden("the defaults", note="Without arguments it is NF4.")
def defaults(rng: Rng):
    return ()


@suite.hidden(
    "two bits", edge="two bits", note="With two bits there is a single negative level, -1."
)
def two(rng: Rng):
    return (2,)


@suite.hidden("two bits, a given offset", edge="two bits", note="Levels of -1 and 1 stay.")
def two_given(rng: Rng):
    return 2, rng.number(0.6, 0.99)


@suite.hidden("three bits", note="The offset follows from the number of bits.")
def three(rng: Rng):
    return (3,)


@suite.hidden("five bits", note="The offset follows from the number of bits.")
def five(rng: Rng):
    return (5,)


@suite.hidden(
    "eight bits",
    edge="eight bits",
    note="Levels are 0.01 apart near 0, where the share of each is small.",
)
def eight(rng: Rng):
    return (8,)


@suite.hidden(
    "the offset that is published",
    concept="quantiles",
    note="There are 8 steps on the positive side, and 7 on the negative one.",
)
def published(rng: Rng):
    return 4, 0.9677083


@suite.hidden(
    "an offset near a half",
    edge="an offset near a half",
    concept="quantiles",
    note="There the distribution function is a straight line, and so are the levels.",
)
def near_half(rng: Rng):
    return 4, rng.number(0.501, 0.51)


@suite.hidden(
    "an offset near one",
    concept="quantiles",
    note="Far out the quantiles are far apart; most levels crowd near 0.",
)
def near_one(rng: Rng):
    return 4, 1 - rng.number(1e-6, 1e-5)


@suite.hidden(
    "an offset near one, many bits",
    concept="precision",
    note="A probability near 1 has few digits in float32; compute in float64.",
)
def precise(rng: Rng):
    return 7, 1 - rng.number(1e-6, 2e-6)


@suite.hidden("an offset of one", raises=ValueError, note="The quantile of 1 is infinite.")
def one(rng: Rng):
    return 4, 1.0


@suite.hidden("an offset of a half", raises=ValueError, note="The quantile of 1/2 is 0.")
def a_half(rng: Rng):
    return 4, 0.5


@suite.hidden("an offset of zero", raises=ValueError, note="0 is a number, and not None.")
def zero(rng: Rng):
    return 4, 0.0


@suite.hidden("nine bits", raises=ValueError, note="Codes are to fit into a byte.")
def nine(rng: Rng):
    return (9,)


@suite.generated("any bits and offset", times=4)
def any_offset(rng: Rng):
    return rng.integer(3, 8), rng.number(0.55, 0.999)
