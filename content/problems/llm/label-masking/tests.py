"""Tests of Labels for a chat."""

import torch

from etude.practice.suite import Rng, Suite

suite = Suite()

START, END, SYSTEM, USER, ASSISTANT, BREAK, WORDS = 1, 2, 5, 7, 8, 9, 20


def words(rng: Rng, count: int) -> list[int]:
    return rng.integers(WORDS, 100, (count,)).tolist()


def turn(rng: Rng, role: int, count: int | None = None) -> list[int]:
    return [START, role, *words(rng, rng.integer(2, 7) if count is None else count), END]


def batch(rng: Rng, rows: list[list[int]], padding: int | None = 0, more: int = 2):
    """Return padded rows and their lengths; padding None is any token, special ones too."""
    width = max(1, *(len(row) for row in rows)) + more
    tokens = rng.integers(0, 12, (len(rows), width))
    if padding is not None:
        tokens[:] = padding
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return tokens, torch.tensor([len(row) for row in rows])


def ids(tokens: torch.Tensor, lengths: torch.Tensor, last_only: bool = False):
    return tokens, lengths, START, ASSISTANT, END, last_only


def chat(rng: Rng, rounds: int) -> list[int]:
    row = turn(rng, SYSTEM) if rng.integer(0, 2) else []
    for _ in range(rounds):
        row += [BREAK, *turn(rng, USER), BREAK, *turn(rng, ASSISTANT)]
    return row


@suite.visible("a question and an answer")
def one_round(rng: Rng):
    return ids(*batch(rng, [turn(rng, USER, 2) + turn(rng, ASSISTANT, 3)]))


@suite.visible("two rows of different lengths")
def two_rows(rng: Rng):
    one = turn(rng, USER, 1) + turn(rng, ASSISTANT, 1)
    return ids(*batch(rng, [one, one + turn(rng, USER, 1) + turn(rng, ASSISTANT, 2)], more=0))


@suite.visible("a length beyond the row", raises=ValueError)
def too_long_shown(rng: Rng):
    tokens, lengths = batch(rng, [turn(rng, ASSISTANT, 2)])
    return ids(tokens, lengths + 9)


@suite.hidden("several rounds", note="Every turn of the assistant is trained, not the first only.")
def several(rng: Rng):
    return ids(*batch(rng, [chat(rng, 3), chat(rng, 2), chat(rng, 1)]))


@suite.hidden(
    "padding that is the end token",
    concept="padding and the end token",
    note="Tell padding by the length: masking every pad id would mask the end of the answer.",
)
def padding_is_end(rng: Rng):
    return ids(*batch(rng, [chat(rng, 2), chat(rng, 1)], padding=END, more=4))


@suite.hidden(
    "padding of any tokens",
    concept="padding and the end token",
    note="Nothing beyond the length counts, whatever stands there.",
)
def any_padding(rng: Rng):
    rows = [chat(rng, 1), chat(rng, 2), turn(rng, USER)]
    tokens, lengths = batch(rng, rows, padding=None, more=12)
    for row, length in enumerate(lengths.tolist()):
        tokens[row, length : length + 6] = torch.tensor([START, ASSISTANT, 30, 31, 32, END])
    return ids(tokens, lengths)


@suite.hidden(
    "the word assistant in a question",
    concept="role tokens",
    note="The id of the role counts only directly behind a start token.",
)
def word(rng: Rng):
    question = [START, USER, *words(rng, 2), ASSISTANT, *words(rng, 2), END]
    answer = [START, ASSISTANT, ASSISTANT, *words(rng, 2), ASSISTANT, END]
    return ids(*batch(rng, [[ASSISTANT, *question, ASSISTANT, BREAK, *answer, ASSISTANT, BREAK]]))


@suite.hidden(
    "between turns",
    note="Line breaks behind an answer belong to no turn; the end token is the last one trained.",
)
def breaks(rng: Rng):
    row = [*turn(rng, USER), BREAK, *turn(rng, ASSISTANT), BREAK, BREAK, 40]
    return ids(*batch(rng, [row + turn(rng, USER) + [BREAK]]))


@suite.hidden(
    "an end token between turns",
    note="An end without a turn before it means nothing.",
)
def stray_end(rng: Rng):
    return ids(*batch(rng, [[END, *turn(rng, USER), END, *turn(rng, ASSISTANT), END, END]]))


@suite.hidden(
    "an answer cut off",
    edge="a turn cut off",
    note="Without an end the turn goes on to the length of the row, and no further.",
)
def cut_off(rng: Rng):
    rows = [turn(rng, USER) + turn(rng, ASSISTANT, 6)[: rng.integer(4, 8)], chat(rng, 2)]
    return ids(*batch(rng, rows, padding=END, more=5))


@suite.hidden("a question cut off", edge="a turn cut off", note="Other turns may be cut off, too.")
def cut_question(rng: Rng):
    return ids(*batch(rng, [turn(rng, ASSISTANT) + turn(rng, USER, 6)[:5]]))


@suite.hidden(
    "cut off behind start",
    edge="a turn cut off",
    note="The role may be missing; what stands in the padding behind it is not the role.",
)
def cut_start(rng: Rng):
    tokens, lengths = batch(rng, [[*turn(rng, USER), START], [*turn(rng, ASSISTANT), START]])
    tokens = torch.cat([tokens, torch.tensor([[40, 41, END]] * 2)], 1)
    for row, length in enumerate(lengths.tolist()):
        tokens[row, length] = ASSISTANT
    return ids(tokens, lengths)


@suite.hidden(
    "cut off behind the role, the last answer only",
    edge="a turn cut off",
    note="The last turn of the assistant has no content here, so the row trains nothing.",
)
def cut_role(rng: Rng):
    row = [*chat(rng, 1), START, ASSISTANT]
    return ids(*batch(rng, [row, chat(rng, 2)]), True)


@suite.hidden(
    "an empty answer",
    edge="an empty answer",
    note="An answer without content still has an end, which is trained.",
)
def empty(rng: Rng):
    return ids(*batch(rng, [turn(rng, USER) + turn(rng, ASSISTANT, 0) + turn(rng, USER)]))


@suite.hidden("no assistant", edge="no assistant", note="Without an answer nothing is trained.")
def nobody(rng: Rng):
    return ids(*batch(rng, [turn(rng, SYSTEM) + turn(rng, USER), chat(rng, 1)]))


@suite.hidden("a row of length 0", edge="a row of length 0", note="A row may be all padding.")
def no_tokens(rng: Rng):
    return ids(*batch(rng, [[], chat(rng, 1)], padding=None))


@suite.hidden("no rows", edge="no rows", note="Without rows the result has the shape (0, L).")
def no_rows(rng: Rng):
    return ids(torch.empty(0, 7, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


@suite.hidden(
    "the last answer only", concept="last answer", note="Earlier answers are read, but not trained."
)
def last(rng: Rng):
    return ids(*batch(rng, [chat(rng, 3), chat(rng, 1), turn(rng, USER)]), True)


@suite.hidden(
    "the last answer only, behind it a question",
    concept="last answer",
    note="The last turn of the assistant need not be the last turn of all.",
)
def last_question(rng: Rng):
    return ids(*batch(rng, [chat(rng, 2) + turn(rng, USER)]), True)


@suite.hidden("two answers in a row", note="Turns need not alternate.")
def twice(rng: Rng):
    return ids(*batch(rng, [turn(rng, ASSISTANT) + turn(rng, ASSISTANT) + turn(rng, USER)]))


@suite.hidden("no padding", note="The last token of a full row has no next one: its label is -100.")
def full(rng: Rng):
    return ids(*batch(rng, [turn(rng, USER) + turn(rng, ASSISTANT)], more=0))


@suite.hidden("other ids", note="Use the ids that are given.")
def other_ids(rng: Rng):
    tokens, lengths = batch(rng, [chat(rng, 2), chat(rng, 1)])
    return tokens + 500, lengths, START + 500, ASSISTANT + 500, END + 500, False


@suite.hidden("a transposed view", concept="memory layout")
def strided(rng: Rng):
    tokens, lengths = batch(rng, [chat(rng, 2), chat(rng, 1), chat(rng, 2)])
    return ids(tokens.T.contiguous().T, lengths)


@suite.hidden("a negative length", raises=ValueError, note="A slice up to -1 would be accepted.")
def negative(rng: Rng):
    tokens, lengths = batch(rng, [chat(rng, 1), chat(rng, 1)])
    lengths[1] = -1
    return ids(tokens, lengths)


@suite.generated("any chats", times=4)
def any_chats(rng: Rng):
    rows = []
    for _ in range(rng.integer(2, 7)):
        row = chat(rng, rng.integer(1, 5))
        rows.append(row[: rng.integer(len(row) // 2, len(row) + 1)])
    return ids(*batch(rng, rows, padding=rng.choice([0, END, None])), rng.integer(0, 2) == 1)
