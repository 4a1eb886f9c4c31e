"""Tests of Cosine schedule with warm-up."""

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-9, atol=1e-15))


@suite.visible("in the warm-up")
def rising(rng: Rng):
    return rng.integer(0, 9), 1.0, 10, 100


@suite.visible("after the warm-up")
def falling(rng: Rng):
    return rng.integer(10, 100), 1.0, 10, 100, 0.1


@suite.visible("a step below 0", raises=ValueError)
def before_the_start_shown(rng: Rng):
    return -1, 1.0, 10, 100


@suite.hidden(
    "the first step", note="Step 0 has the rate peak / W: a rate of 0 would teach nothing."
)
def first(rng: Rng):
    return 0, rng.number(1e-4, 1), rng.integer(3, 50), 100


@suite.hidden(
    "the last step of the warm-up",
    concept="off by one",
    note="At t = W - 1 the rate is the peak itself.",
)
def top(rng: Rng):
    warmup = rng.integer(5, 50)
    return warmup - 1, rng.number(1e-4, 1), warmup, 100


@suite.hidden(
    "the first step after the warm-up",
    concept="off by one",
    note="At t = W the fall has begun: u is 1 / (T - W).",
)
def over_the_top(rng: Rng):
    warmup = rng.integer(5, 50)
    return warmup, rng.number(1e-4, 1), warmup, 60, 0.1


@suite.hidden(
    "the last step of all",
    concept="off by one",
    note="At t = T - 1 the wave is at its end.",
)
def last(rng: Rng):
    total = rng.integer(20, 200)
    return total - 1, rng.number(1e-4, 1), 10, total, rng.number(0.05, 0.5)


@suite.hidden("one step before the last", concept="off by one", note="Here u is short of 1.")
def before_last(rng: Rng):
    total = rng.integer(20, 50)
    return total - 2, rng.number(0.1, 1), 10, total


@suite.hidden(
    "the first step past the end",
    edge="past the end",
    note="A cosine would rise again; past the end the rate stays where it is.",
)
def past(rng: Rng):
    total = rng.integer(20, 40)
    return total, rng.number(0.1, 1), 10, total, 0.1


@suite.hidden(
    "far past the end",
    edge="past the end",
    note="A cosine would rise again; past the end the rate stays where it is.",
)
def far_past(rng: Rng):
    total = rng.integer(20, 40)
    return total + rng.integer(10, 40), rng.number(0.1, 1), 10, total, rng.number(0, 0.5)


@suite.hidden(
    "no warm-up, first step",
    edge="no warm-up",
    note="Without a warm-up step 0 is on the wave already. Do not divide by W.",
)
def no_warmup(rng: Rng):
    return 0, rng.number(0.1, 1), 0, rng.integer(5, 50)


@suite.hidden("no warm-up, half-way", edge="no warm-up")
def no_warmup_later(rng: Rng):
    total = rng.integer(5, 50)
    return total // 2, rng.number(0.1, 1), 0, total, 0.2


@suite.hidden(
    "warm-up only, its last step",
    edge="warm-up only",
    note="With W = T the rate rises to the end.",
)
def warmup_only(rng: Rng):
    total = rng.integer(5, 50)
    return total - 1, rng.number(0.1, 1), total, total, 0.3


@suite.hidden(
    "warm-up only, past its end",
    edge="warm-up only",
    note="With W = T the wave has no length. Do not divide by T - W.",
)
def warmup_only_past(rng: Rng):
    total = rng.integer(5, 50)
    return total + rng.integer(0, 5), rng.number(0.1, 1), total, total, 0.3


@suite.hidden("one step without warm-up", edge="one step", note="The only step is also the last.")
def one_step(rng: Rng):
    return 0, rng.number(0.1, 1), 0, 1, 0.25


@suite.hidden("one step of warm-up", edge="one step", note="The only step has the peak.")
def one_step_warm(rng: Rng):
    return 0, rng.number(0.1, 1), 1, 1, 0.25


@suite.hidden("a share of 1", note="With a share of 1 nothing falls.")
def flat(rng: Rng):
    return rng.integer(10, 90), rng.number(0.1, 1), 10, 100, 1.0


@suite.hidden("a peak of 0", note="A peak of 0 is 0 everywhere.")
def frozen(rng: Rng):
    return rng.integer(0, 90), 0.0, 10, 100, 0.1


@suite.hidden("very long training", note="Large whole numbers are exact in Python.")
def long(rng: Rng):
    return rng.integer(2_000_000, 10**9), 3e-4, 2_000_000, 10**9, 0.01


@suite.hidden("no steps", raises=ValueError, note="Training takes at least one step.")
def no_steps(rng: Rng):
    return 0, 1.0, 0, 0


@suite.hidden("a longer warm-up than training", raises=ValueError, note="W is at most T.")
def long_warmup(rng: Rng):
    return 3, 1.0, 11, 10


@suite.hidden("a negative warm-up", raises=ValueError, note="W is at least 0.")
def negative_warmup(rng: Rng):
    return 3, 1.0, -1, 10


@suite.hidden("a share above 1", raises=ValueError, note="The rate must not end above its peak.")
def share_above_one(rng: Rng):
    return 3, 1.0, 1, 10, 1.5


@suite.hidden("a negative share", raises=ValueError, note="A negative rate climbs the loss.")
def negative_share(rng: Rng):
    return 3, 1.0, 1, 10, -0.1


@suite.generated("any step", times=6)
def any_step(rng: Rng):
    total = rng.integer(2, 5000)
    step, warmup = rng.integer(0, total), rng.integer(0, total // 2 + 1)
    return step, rng.number(1e-5, 1), warmup, total, rng.number(0, 0.9)
