"""Tests of A stream shared out to workers."""

from etude.practice.suite import Rng, Suite

# Arguments: elements, the ranks to look at, all ranks, workers (0: no processes), whether parts are
# even, and whether the elements come over and over without end.
suite = Suite()


def numbers(rng: Rng, count: int) -> list[int]:
    return rng.integers(0, 1000, (count,)).tolist()


def case(rng: Rng, count: int, world: int, workers: int, even: bool = False, endless: bool = False):
    return numbers(rng, count), list(range(world)), world, workers, even, endless


@suite.visible("seven elements for two ranks without worker processes")
def two_ranks(rng: Rng):
    return case(rng, 7, 2, 0)


@suite.visible("ten elements for one rank with three workers")
def three_workers(rng: Rng):
    return case(rng, 10, 1, 3)


@suite.visible("seven elements in even parts")
def even_shown(rng: Rng):
    return case(rng, 7, 2, 0, even=True)


@suite.visible("a rank that is one too large", raises=ValueError)
def rank_shown(rng: Rng):
    return numbers(rng, 4), [2], 2, 0, False, False


@suite.hidden("no elements", edge="no elements", note="An empty source gives empty parts.")
def none(rng: Rng):
    return case(rng, 0, 3, 2, even=bool(rng.integer(0, 2)))


@suite.hidden(
    "three elements for five ranks",
    edge="fewer elements than ranks",
    note="Some ranks get nothing then.",
)
def few(rng: Rng):
    return case(rng, 3, 5, 2)


@suite.hidden(
    "three elements for five ranks in even parts",
    edge="fewer elements than ranks",
    concept="even parts",
    note="If there is not one for each rank, nobody gets one.",
)
def few_even(rng: Rng):
    return case(rng, 3, 5, 0, even=True)


@suite.hidden(
    "one rank without worker processes",
    edge="no worker processes",
    note="get_worker_info() is None then, and the whole source is yielded.",
)
def alone(rng: Rng):
    return case(rng, 9, 1, 0)


@suite.hidden("one worker process", note="One worker gets all that its rank gets.")
def one_worker(rng: Rng):
    return case(rng, 9, 2, 1)


@suite.hidden(
    "three ranks with two workers each",
    note="First elements go round the ranks, then those of a rank go round its workers.",
)
def ranks_and_workers(rng: Rng):
    return case(rng, 23, 3, 2)


@suite.hidden("two ranks with three workers each", note="Ranks and workers have different numbers.")
def workers_and_ranks(rng: Rng):
    return case(rng, 23, 2, 3)


@suite.hidden("more workers than elements", note="Some workers have nothing to do.")
def idle(rng: Rng):
    return case(rng, 5, 2, 4)


@suite.hidden(
    "even parts with workers",
    concept="even parts",
    note="Ranks must be even, not workers: only elements without a whole round are left out.",
)
def even_workers(rng: Rng):
    return case(rng, 3 * 5 + 2, 3, 2, even=True)


@suite.hidden(
    "even parts of what divides",
    concept="even parts",
    note="If all rounds are whole, nothing is left out.",
)
def even_whole(rng: Rng):
    return case(rng, 12, 4, 2, even=True)


@suite.hidden(
    "even parts for one rank", concept="even parts", note="One rank is always even with itself."
)
def even_alone(rng: Rng):
    return case(rng, 7, 1, 3, even=True)


@suite.hidden(
    "a source without end",
    concept="laziness",
    note="Yield while you read. A list of all elements never comes to its end.",
)
def endless(rng: Rng):
    return case(rng, 11, 3, 2, endless=True)


@suite.hidden(
    "a source without end in even parts",
    concept="laziness",
    note="Wait for the end of the round, and no longer.",
)
def endless_even(rng: Rng):
    return case(rng, 11, 3, 2, even=True, endless=True)


@suite.hidden(
    "None among the elements",
    note="None is an element like any other. Do not use it to tell that something is missing.",
)
def nones(rng: Rng):
    elements = [None if rng.integer(0, 2) else number for number in numbers(rng, 17)]
    return elements, [0, 1, 2], 3, 2, True, False


@suite.hidden("elements that are equal", note="Elements are told apart by their places only.")
def equal(rng: Rng):
    return ["same"] * 13, [0, 1, 2, 3], 4, 2, True, False


@suite.hidden("tensors and strings", note="Elements may be anything. Yield them as they are.")
def anything(rng: Rng):
    return (
        [rng.randn(2), "text", rng.randn(3), {"a": 1}, "more", rng.randn(1)],
        [0, 1],
        2,
        2,
        True,
        False,
    )


@suite.hidden("a negative rank", raises=ValueError, note="Ranks begin at 0.")
def negative(rng: Rng):
    return numbers(rng, 4), [-1], 2, 0, True, False


@suite.hidden("a world without ranks", raises=ValueError, note="No rank belongs to such a world.")
def no_world(rng: Rng):
    return numbers(rng, 4), [0], 0, 0, False, False


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    even, without_end = bool(rng.integer(0, 2)), bool(rng.integer(0, 2))
    return case(rng, rng.integer(1, 60), rng.integer(1, 9), rng.integer(0, 5), even, without_end)
