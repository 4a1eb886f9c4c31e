"""Tests of Distillation loss."""

import math

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-3, atol=1e-5))


def case(
    rng: Rng,
    sequences: int = 2,
    length: int = 5,
    vocabulary: int = 6,
    *,
    temperature: float = 2.0,
    alpha: float = 0.3,
    ignored: float = 0.0,
    scale: float = 2.0,
    dtype: torch.dtype = torch.float32,
):
    """Return arguments in which about the share `ignored` does not count, but the first does."""
    shape = sequences, length
    hidden = rng.bools(shape, ignored)
    hidden[0, 0] = False
    labels = rng.integers(0, vocabulary, shape).masked_fill(hidden, -100)
    student, teacher = (rng.randn(*shape, vocabulary, dtype=dtype, scale=scale) for _ in range(2))
    return student, teacher, labels, temperature, alpha


@suite.visible("both terms")
def both(rng: Rng):
    return case(rng, 1, 3, 4)


@suite.visible("half of the places count")
def masked_shown(rng: Rng):
    student, teacher, labels, *more = case(rng, 1, 4, 3)
    labels[0, 1] = labels[0, 3] = -100
    return student, teacher, labels, *more


@suite.visible("a temperature of 0", raises=ValueError)
def frozen_shown(rng: Rng):
    return case(rng, temperature=0.0)


@suite.hidden(
    "the teacher alone",
    note="With alpha = 0 only the divergence remains, from the teacher to the student.",
)
def soft_only(rng: Rng):
    return case(rng, alpha=0.0, temperature=1.0)


@suite.hidden("the labels alone", note="With alpha = 1 this is the cross-entropy.")
def hard_only(rng: Rng):
    return case(rng, alpha=1.0, temperature=5.0)


@suite.hidden(
    "a high temperature",
    concept="temperature",
    note="The gradient of the soft term shrinks with the square of the temperature: multiply.",
    tolerance=Tolerance(rtol=1e-3, atol=1e-4),
)
def hot(rng: Rng):
    return case(rng, temperature=8.0)


@suite.hidden(
    "a low temperature",
    concept="temperature",
    note="Logits divided by a small temperature are large; the softmax must be a stable one.",
)
def cold(rng: Rng):
    return case(rng, temperature=0.05, scale=8.0)


@suite.hidden(
    "places that do not count",
    concept="masking",
    note="Divide by the number of places that count, for both terms.",
)
def masked(rng: Rng):
    return case(rng, 4, 8, 10, ignored=0.6)


@suite.hidden(
    "NaN and infinity at places that do not count",
    concept="masking",
    note="0 times NaN is NaN: choose the places that count before you compute.",
)
def rubbish(rng: Rng):
    student, teacher, labels, *more = case(rng, 3, 6, 5, ignored=0.5)
    labels[1, 2] = labels[2, 0] = labels[2, 1] = -100
    student[1, 2], teacher[2, 0] = math.nan, math.nan
    student[2, 1], teacher[2, 1] = math.inf, -math.inf
    return student, teacher, labels, *more


@suite.hidden(
    "one place counts",
    edge="one place counts",
    concept="masking",
    note="A mean over one place is this place.",
)
def one_place(rng: Rng):
    student, teacher, labels, *more = case(rng, 3, 4, 5)
    one = torch.full_like(labels, -100)
    one[1, 2] = labels[1, 2]
    return student, teacher, one, *more


@suite.hidden(
    "no place counts",
    edge="no place counts",
    concept="masking",
    note="Where none counts, 0 / 0 is NaN; the loss is 0, and so are its gradients.",
)
def no_place(rng: Rng):
    student, teacher, labels, *more = case(rng, 2, 3, 4)
    return student, teacher, torch.full_like(labels, -100), *more


@suite.hidden("one token", edge="V = 1", note="With one token there is nothing to learn.")
def one_token(rng: Rng):
    return case(rng, vocabulary=1)


@suite.hidden("a student that agrees", note="Equal logits have a divergence of 0.")
def agrees(rng: Rng):
    student, _, *more = case(rng)
    return student, student.clone(), *more


@suite.hidden(
    "tokens that the teacher rules out",
    concept="numerical stability",
    note="Where p is 0 its logarithm is minus infinity; the product is taken for 0.",
)
def ruled_out(rng: Rng):
    student, teacher, *more = case(rng, 2, 4, 7)
    teacher[..., 2], teacher[0, :, 5] = -math.inf, -math.inf
    return student, teacher, *more


@suite.hidden(
    "a student that is sure and wrong",
    concept="numerical stability",
    note="The probability underflows to 0, but its logarithm is an ordinary number.",
)
def sure(rng: Rng):
    student, teacher, labels, *more = case(rng, 2, 3, 4, temperature=1.0)
    wrong = torch.nn.functional.one_hot((labels + 1) % 4, 4)
    return student + 300 * wrong, teacher, labels, *more


@suite.hidden(
    "large logits",
    concept="numerical stability",
    note="exp of a large logit is infinite; use log_softmax.",
)
def large(rng: Rng):
    student, teacher, *more = case(rng)
    return (student * 8).round() / 8 + 512, (teacher * 8).round() / 8 - 512, *more


@suite.hidden(
    "sequences of one place in a large batch",
    note="The mean is over places, not over sequences or over the vocabulary.",
)
def flat(rng: Rng):
    return case(rng, 16, 1, 30)


@suite.hidden(
    "bfloat16",
    concept="precision",
    note="Logits in bfloat16 go up to float32 first, and the loss stays there.",
    tolerance=Tolerance(rtol=8e-3, atol=2e-5),
)
def half(rng: Rng):
    return case(rng, 4, 10, 40, dtype=torch.bfloat16, ignored=0.2, scale=4.0)


@suite.hidden(
    "a mean of many values in bfloat16",
    concept="precision",
    note="The loss is of float32 and has the precision of it.",
)
def half_loss(rng: Rng):
    # One token has all the weight, so that the gradients are 0 and the loss is large.
    student, teacher, labels, *more = case(rng, 8, 20, 10, dtype=torch.bfloat16, temperature=1.0)
    winner = torch.nn.functional.one_hot((labels + 1) % 10, 10)
    return (student + 100 * winner).bfloat16(), (teacher + 100 * winner).bfloat16(), labels, *more


@suite.hidden(
    "float64",
    concept="precision",
    tolerance=Tolerance(rtol=1e-9, atol=1e-11),
    note="Nothing may pass through float32.",
)
def double(rng: Rng):
    return case(rng, 2, 6, 9, dtype=torch.float64, ignored=0.3, temperature=20.0)


@suite.hidden("transposed views", concept="memory layout")
def strided(rng: Rng):
    student, teacher, labels, *more = case(rng, 3, 4, 5, ignored=0.3)
    student = student.transpose(0, 1).contiguous().transpose(0, 1)
    return student, teacher.mT.contiguous().mT, labels.T.contiguous().T, *more


@suite.hidden("a negative temperature", raises=ValueError, note="It would turn the order round.")
def negative(rng: Rng):
    return case(rng, temperature=-1.0)


@suite.hidden("alpha above 1", raises=ValueError, note="alpha is a share.")
def above(rng: Rng):
    return case(rng, alpha=1.2)


@suite.hidden("alpha below 0", raises=ValueError, note="alpha is a share.")
def below(rng: Rng):
    return case(rng, alpha=-0.2)


@suite.generated("any sizes", times=3)
def sizes(rng: Rng):
    return case(
        rng,
        rng.integer(1, 9),
        rng.integer(1, 20),
        rng.integer(2, 150),
        temperature=rng.number(0.5, 4),
        alpha=rng.number(0.05, 0.95),
        ignored=0.4,
    )
