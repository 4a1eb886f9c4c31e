"""Tests of A shuffle that can be resumed."""

from etude.practice.suite import Rng, Suite

# Arguments: count, seed, epoch, position, and whether frequencies are counted.
suite = Suite(deterministic=True)
# 4 × 4 neighbours and, for each of 5 widths, 2 far pairs; one more pair is the same each time.
PAIRS = 16 + 5 * 2 + 1


@suite.check
def follows_the_rules(arguments, answer):
    count, _, _, position, frequent = arguments
    order, whole, again = answer["order"], answer["whole"], answer["again"]
    for name, made in (("the order", order), ("the order of the whole epoch", whole)):
        if not isinstance(made, list) or any(type(index) is not int for index in made):
            return f"{name} is not a list of int"
    if sorted(whole) != list(range(count)):
        return "the order of a whole epoch does not name every sample exactly once"
    if order != whole[position:]:
        return "the order from a position on is not the end of the whole epoch's order"
    if again != order:
        return "the same call gives another order after the global random states have changed"
    if answer["global states untouched"] is not True:
        return "a global random state has changed"
    if count >= 20 and answer["different orders"] != PAIRS:
        return "different pairs of seed and epoch give the same order"
    if frequent and not all(50 <= number <= 150 for number in answer["how often"]):
        return "the permutations of three samples are not about equally frequent"
    return None


@suite.visible("thirty samples from the beginning")
def thirty(rng: Rng):
    return 30, rng.integer(0, 1000), rng.integer(0, 100), 0, False


@suite.visible("resumed after twelve of thirty")
def resumed(rng: Rng):
    return 30, rng.integer(0, 1000), rng.integer(0, 100), 12, False


@suite.visible("a position beyond the end", raises=ValueError)
def beyond_shown(rng: Rng):
    return 5, rng.integer(0, 1000), 0, 6, False


@suite.hidden("no samples", edge="count = 0", note="No samples have one order, the empty list.")
def none(rng: Rng):
    return 0, rng.integer(0, 1000), 0, 0, False


@suite.hidden("one sample", edge="count = 1", note="One sample has one order.")
def one(rng: Rng):
    return 1, rng.integer(0, 1000), rng.integer(0, 100), 0, False


@suite.hidden(
    "resumed at the very end",
    edge="position = count",
    note="An epoch that is over has nothing left: an empty list, no error.",
)
def at_the_end(rng: Rng):
    return 25, rng.integer(0, 1000), rng.integer(0, 100), 25, False


@suite.hidden("resumed before the last sample", note="The last sample is left.")
def last(rng: Rng):
    return 40, rng.integer(0, 1000), rng.integer(0, 100), 39, False


@suite.hidden(
    "a position beyond the end of no samples",
    raises=ValueError,
    note="A position lies between 0 and the number of samples.",
)
def beyond_none(rng: Rng):
    return 0, rng.integer(0, 1000), 0, 1, False


@suite.hidden(
    "a negative position",
    raises=ValueError,
    note="A slice from a negative place on would quietly count from the end.",
)
def negative(rng: Rng):
    return 8, rng.integer(0, 1000), 0, -3, False


@suite.hidden(
    "large seeds",
    concept="seeding",
    note="Some generators use only a part of a large seed. Mix seed and epoch well.",
)
def large_seed(rng: Rng):
    return 50, rng.integer(2**30, 2**31 - 100), rng.integer(0, 50), 7, False


@suite.hidden("late epochs", concept="seeding", note="Epochs may have large numbers, too.")
def late(rng: Rng):
    return 50, rng.integer(0, 1000), rng.integer(300_000, 400_000), 20, False


@suite.hidden(
    "seed 0 and epoch 0", concept="seeding", note="0 is a seed like any other, and an epoch too."
)
def zeros(rng: Rng):
    return rng.integer(20, 60), 0, 0, 0, False


@suite.hidden(
    "all permutations of three samples",
    concept="random permutations",
    note="Each permutation must be about equally frequent.",
)
def frequencies(rng: Rng):
    return 3, rng.integer(0, 1000), 0, 1, True


@suite.hidden(
    "frequencies for a large seed",
    concept="random permutations",
    note="Each permutation must be about equally frequent.",
)
def frequencies_large(rng: Rng):
    return 3, rng.integer(2**30, 2**31), 0, 0, True


@suite.generated("any place in any epoch", times=3)
def anywhere(rng: Rng):
    count = rng.integer(20, 300)
    return count, rng.integer(0, 2**31 - 100), rng.integer(0, 1000), rng.integer(0, count), False
