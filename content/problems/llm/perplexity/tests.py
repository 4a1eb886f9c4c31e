"""Tests of Perplexity over batches."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=0.0))


def batch(
    rng: Rng,
    sequences: int,
    tokens: int,
    vocabulary: int,
    *,
    share: float = 0.0,
    scale: float = 2.0,
    dtype: torch.dtype = torch.float32,
):
    """Return logits and labels, of which about `share` do not count, but the first does."""
    labels = rng.integers(0, vocabulary, (sequences, tokens))
    ignored = rng.bools((sequences, tokens), share)
    ignored[0, 0] = False
    logits = rng.randn(sequences, tokens, vocabulary, dtype=dtype, scale=scale)
    return logits, labels.masked_fill(ignored, -100)


@suite.visible("one batch of two sequences")
def one_batch(rng: Rng):
    return ([batch(rng, 2, 3, 4)],)


@suite.visible("nothing counts", raises=ValueError)
def nothing_shown(rng: Rng):
    return ([(rng.randn(1, 2, 3), torch.full((1, 2), -100))],)


@suite.hidden("one token", edge="one token", note="With one token it is 1 / p of that token.")
def one(rng: Rng):
    return ([batch(rng, 1, 1, 5)],)


@suite.hidden(
    "places that do not count",
    concept="ignored labels",
    note="A label of -100 counts neither in the sum nor in the number of tokens.",
)
def ignored(rng: Rng):
    logits, labels = batch(rng, 3, 8, 6, share=0.5)
    labels[-1] = -100
    return ([(logits, labels)],)


@suite.hidden(
    "batches of unequal size",
    concept="token-weighted means",
    note="A mean of the batches' means gives tokens of small batches too much weight.",
)
def unequal(rng: Rng):
    return ([batch(rng, 8, 16, 10, scale=0.1), batch(rng, 1, 2, 10, scale=9)],)


@suite.hidden(
    "batches of equal size, unequal labels",
    concept="token-weighted means",
    note="What weighs a batch is its number of labels that count, not its size.",
)
def unequal_labels(rng: Rng):
    sparse, labels = batch(rng, 2, 12, 10, scale=8)
    labels[0, 2:] = -100
    labels[1] = -100
    return ([batch(rng, 2, 12, 10, scale=0.1), (sparse, labels)],)


@suite.hidden(
    "a batch without a label",
    edge="a batch without a label",
    note="A batch in which no label counts adds nothing; a mean over it would be NaN.",
)
def empty_batch(rng: Rng):
    none = rng.randn(2, 3, 7), torch.full((2, 3), -100)
    return ([batch(rng, 2, 5, 7), none, batch(rng, 1, 4, 7)],)


@suite.hidden(
    "other vocabularies and lengths",
    note="Batches may differ in every size; they cannot be joined to one tensor.",
)
def other_sizes(rng: Rng):
    return ([batch(rng, 2, 5, 7), batch(rng, 3, 9, 7, share=0.3), batch(rng, 1, 1, 30)],)


@suite.hidden(
    "a model that is sure and wrong",
    concept="stable log-softmax",
    note="The probability underflows to 0 here, but its logarithm is an ordinary number.",
)
def sure(rng: Rng):
    logits, labels = batch(rng, 2, 4, 5, scale=1)
    logits = torch.where(torch.nn.functional.one_hot(labels, 5) > 0, logits - 200, logits)
    return ([(logits, labels)],)


@suite.hidden(
    "large logits",
    concept="stable log-softmax",
    note="exp of a large logit is infinite; use log_softmax or cross_entropy.",
)
def large(rng: Rng):
    logits, labels = batch(rng, 2, 4, 5, scale=1)
    return ([(logits + 1024, labels)],)


@suite.hidden(
    "beyond the largest float",
    note="A mean above 709.78 is too large for exp of a float: return infinity.",
)
def overflow(rng: Rng):
    labels = rng.integers(0, 4, (1, 3))
    return ([(torch.nn.functional.one_hot(labels, 4).float() * -50000, labels)],)


@suite.hidden(
    "bfloat16",
    concept="precision",
    note="In bfloat16 a log-probability keeps two or three digits; compute in float32.",
)
def half(rng: Rng):
    return ([batch(rng, 2, 6, 50, dtype=torch.bfloat16, scale=4)],)


@suite.hidden(
    "float64",
    concept="precision",
    tolerance=Tolerance(rtol=1e-10, atol=0.0),
    note="float64 logits must not pass through float32.",
)
def double(rng: Rng):
    return ([batch(rng, 2, 6, 9, dtype=torch.float64), batch(rng, 1, 3, 9, dtype=torch.float64)],)


@suite.hidden("no batches", raises=ValueError, note="Without batches no label counts.")
def no_batches(rng: Rng):
    return ([],)


@suite.hidden("several batches, nothing counts", raises=ValueError, note="0 / 0 is no perplexity.")
def nothing(rng: Rng):
    return ([(rng.randn(2, 3, 4), torch.full((2, 3), -100)) for _ in range(2)],)


@suite.generated("any batches", times=3)
def any_batches(rng: Rng):
    return (
        [
            batch(rng, rng.integer(1, 6), rng.integer(1, 16), 20, share=0.4, scale=rng.number(0, 4))
            for _ in range(rng.integer(2, 6))
        ],
    )
