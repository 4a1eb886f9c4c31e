"""Tests of Causal mask."""

from etude.practice.suite import Rng, Suite

suite = Suite()


@suite.visible("three queries, five keys")
def cached(rng: Rng):
    return 3, 5


@suite.visible("three queries, five keys, a window of two")
def windowed(rng: Rng):
    return 3, 5, 2


@suite.visible("more queries than keys", raises=ValueError)
def too_many_shown(rng: Rng):
    return 4, 3


@suite.hidden("as many queries as keys", note="Without a cache this is the lower triangle.")
def square(rng: Rng):
    count = rng.integer(5, 30)
    return count, count


@suite.hidden("one query and one key", edge="one query, one key", note="A token sees itself.")
def single(rng: Rng):
    return 1, 1


@suite.hidden(
    "one query, many keys",
    edge="one query",
    note="The one query of a decoding step is the last token, so it sees every key.",
)
def step(rng: Rng):
    return 1, rng.integer(5, 60)


@suite.hidden("no queries", edge="no queries", note="Without queries the shape is (0, K).")
def none(rng: Rng):
    return 0, rng.integer(1, 9)


@suite.hidden("neither queries nor keys", edge="no queries", note="An empty mask is (0, 0).")
def nothing(rng: Rng):
    return 0, 0


@suite.hidden(
    "a window of one", concept="sliding window", note="A window of 1 holds the query's own key."
)
def window_of_one(rng: Rng):
    return 6, 9, 1


@suite.hidden(
    "a window as wide as the keys",
    concept="sliding window",
    note="With w = K the last query still sees every key.",
)
def window_of_all(rng: Rng):
    keys = rng.integer(6, 12)
    return 5, keys, keys


@suite.hidden(
    "a window one short of the keys",
    concept="sliding window",
    note="With w = K - 1 exactly one key falls out, for the last query only.",
)
def window_short_by_one(rng: Rng):
    keys = rng.integer(6, 12)
    return 5, keys, keys - 1


@suite.hidden("a window wider than the keys", note="A wide window takes nothing away.")
def wide_window(rng: Rng):
    return 7, 11, rng.integer(20, 5000)


@suite.hidden("one query with a window", note="The query sees the last w keys.")
def step_window(rng: Rng):
    return 1, rng.integer(20, 60), rng.integer(2, 9)


@suite.hidden("queries but no keys", raises=ValueError, note="More queries than keys are an error.")
def too_many(rng: Rng):
    return rng.integer(1, 5), 0


@suite.hidden("a window of zero", raises=ValueError, note="A window must hold a key or more.")
def no_window(rng: Rng):
    return 3, 5, 0


@suite.hidden("a negative window", raises=ValueError, note="A window must hold a key or more.")
def negative_window(rng: Rng):
    return 3, 5, -rng.integer(1, 5)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    keys = rng.integer(20, 201)
    return rng.integer(2, keys), keys


@suite.generated("any sizes with a window", times=3)
def sizes_window(rng: Rng):
    keys = rng.integer(20, 201)
    return rng.integer(2, keys), keys, rng.integer(2, keys - 1)
