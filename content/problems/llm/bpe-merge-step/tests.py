"""Tests of One merge of byte-pair encoding."""

from etude.practice.suite import Rng, Suite

suite = Suite()


def corpus(rng: Rng, symbols: list[str], count: int, longest: int):
    """Return `count` random words, or a few less where two are the same."""
    words = {}
    for _ in range(count):
        word = tuple(rng.choice(symbols) for _ in range(rng.integer(1, longest + 1)))
        words[word] = rng.integer(1, 1001)
    return words


@suite.visible("frequent words weigh more")
def weighed(rng: Rng):
    often = rng.integer(5, 10)
    rare = {("a", "b", "c"): 1, ("a", "b", "d"): 1, ("a", "b", "e"): 1}
    return ({**rare, ("x", "y"): often},)


@suite.visible("two pairs with the same count")
def tie_shown(rng: Rng):
    number = rng.integer(1, 9)
    return ({("z", "b"): number, ("a", "c"): number, ("a", "b"): number, ("b", "a"): 1},)


@suite.hidden("no words", edge="no words", note="Without words there is no pair: return None.")
def none(rng: Rng):
    return ({},)


@suite.hidden(
    "words of one symbol",
    edge="words of one symbol",
    note="A word of one symbol has no pair; where that holds for all, return None.",
)
def single(rng: Rng):
    return ({("a",): rng.integer(1, 9), ("low",): rng.integer(1, 9)},)


@suite.hidden(
    "a run of one letter",
    concept="overlaps",
    note="In a run of one letter pairs overlap: each counts, but the merge takes them one by one.",
)
def run(rng: Rng):
    return ({("a",) * rng.integer(5, 12): rng.integer(1, 9), ("b", "a"): 1},)


@suite.hidden(
    "overlaps decide",
    concept="overlaps",
    note="Overlapping occurrences all count: three equal letters hold the pair twice.",
)
def overlaps(rng: Rng):
    number = rng.integer(2, 50)
    return ({("b", "b", "b"): number, ("a", "c"): number + 1},)


@suite.hidden(
    "the pair twice in a word",
    note="Merge every occurrence in a word, not the first one only.",
)
def twice(rng: Rng):
    return ({("i", "s", "x", "i", "s"): rng.integer(3, 9), ("s", "x"): 1},)


@suite.hidden(
    "a tie with longer symbols",
    concept="ties",
    note="Compare pairs as tuples: first symbol first. Joined strings have another order.",
)
def tie(rng: Rng):
    # As tuples ("a", "z") is first; joined, "abc" would be.
    number = rng.integer(1, 9)
    return ({("ab", "c"): number, ("a", "z"): number},)


@suite.hidden(
    "a tie in which the largest pair comes first",
    concept="ties",
    note="Among equal counts the smallest pair wins, wherever it stands.",
)
def tie_order(rng: Rng):
    number = rng.integer(1, 9)
    names = sorted({rng.choice("abcdefghijklmnop") for _ in range(8)} | {"a", "q"}, reverse=True)
    return ({(name, "z"): number for name in names},)


@suite.hidden(
    "symbols of several characters",
    note="Symbols are units: compare them one by one and do not search in the joined text.",
)
def long_symbols(rng: Rng):
    # The text "lower" is the same three times, but its symbols are not.
    return (
        {
            ("l", "ow", "er"): rng.integer(200, 300),
            ("lo", "w", "er"): 2,
            ("l", "o", "w", "er"): 3,
            ("l", "owe", "r"): 4,
        },
    )


@suite.hidden(
    "words that become the same",
    concept="counting",
    note="Two words may be equal after the merge; their numbers are added.",
)
def collide(rng: Rng):
    return ({("a", "b"): rng.integer(5, 9), ("ab",): rng.integer(2, 9), ("c", "ab"): 1},)


@suite.hidden("one word", note="A single word of two symbols becomes one symbol.")
def pair(rng: Rng):
    return ({("q", "u"): rng.integer(1, 9)},)


@suite.hidden("letters that are not ASCII", note="Symbols may be any text.")
def letters(rng: Rng):
    return (corpus(rng, ["ä", "ß", "日", "本", "é"], 30, 6),)


@suite.generated("two letters", times=2)
def two_letters(rng: Rng):
    return (corpus(rng, ["a", "b"], 60, 12),)


@suite.generated("any words", times=3)
def any_words(rng: Rng):
    return (corpus(rng, ["a", "b", "c", "ab", "bc", "th", "e", "_"], 150, 8),)
