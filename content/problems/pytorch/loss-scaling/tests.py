"""Tests of A loss scaler for half precision."""

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: options of the scaler, the optimiser, three weights of which the third is never used,
# one batch a step, and what is done in each step.
suite = Suite(tolerance=Tolerance(rtol=1e-4, atol=1e-9))


def case(rng: Rng, script: list[str], kind="momentum", width=4, size=1.0, **options):
    options = {"scale": 1024.0, "interval": 3, **options}
    weights = [rng.uniform(0.5, 1.5, (width,)) for _ in range(3)]
    batches = [size * rng.uniform(0.5, 1.5, (4, width)) for _ in script]
    return options, kind, weights, batches, script


@suite.visible("two steps")
def two(rng: Rng):
    return case(rng, ["plain"] * 2, width=2)


@suite.visible("a step that overflows")
def overflow_shown(rng: Rng):
    return case(rng, ["plain", "infinite", "plain"], width=2)


@suite.hidden(
    "the scale grows every second step",
    concept="growth",
    note="After `interval` steps in a row the scale grows, and counting begins anew.",
)
def grows(rng: Rng):
    return case(rng, ["plain"] * 7, interval=2, scale=16.0)


@suite.hidden(
    "the scale grows at each step",
    edge="interval 1",
    concept="growth",
    note="With an interval of 1 each step that is taken makes the scale grow.",
)
def each_step(rng: Rng):
    return case(rng, ["plain", "plain", "nan", "plain"], interval=1, scale=4.0)


@suite.hidden(
    "the first step overflows",
    edge="the first step overflows",
    note="A skipped step leaves the optimiser without any state.",
)
def first(rng: Rng):
    return case(rng, ["infinite", "plain"], "adam")


@suite.hidden(
    "skipped steps in a row",
    concept="backoff",
    note="Each skipped step makes the scale smaller.",
)
def several(rng: Rng):
    return case(rng, ["plain", "nan", "infinite", "both", "plain"], backoff=0.25)


@suite.hidden(
    "a skipped step between good ones",
    concept="growth",
    note="A skipped step makes counting begin anew.",
)
def interrupted(rng: Rng):
    return case(rng, ["plain", "plain", "infinite", "plain", "plain", "plain", "plain"])


@suite.hidden(
    "Adam's state over a skipped step",
    concept="skipped steps",
    note="A step with gradients of 0 is not a skipped step: means and step counts would change.",
)
def adam(rng: Rng):
    return case(rng, ["plain", "nan", "plain"], "adam")


@suite.hidden(
    "momentum over a skipped step",
    concept="skipped steps",
    note="A step with gradients of 0 still moves weights by their momentum.",
)
def momentum(rng: Rng):
    return case(rng, ["plain", "plain", "infinite", "plain"])


@suite.hidden(
    "a NaN in one gradient only",
    concept="skipped steps",
    note="One bad number in one gradient is enough to skip the step for all.",
)
def one_bad(rng: Rng):
    return case(rng, ["nan", "plain", "infinite"], "adam", width=9)


@suite.hidden(
    "infinities of both signs",
    note="Plus and minus infinity add up to NaN. Look at each number.",
)
def both(rng: Rng):
    return case(rng, ["plain", "both", "plain"])


@suite.hidden(
    "gradients that overflow by themselves",
    concept="half precision",
    note="The scale is too large for float16 here. It must come down step by step.",
)
def real_overflow(rng: Rng):
    return case(rng, ["plain"] * 8, scale=2.0**22, interval=2)


@suite.hidden(
    "the default options",
    concept="half precision",
    note="Options that are not given have the values of the statement.",
)
def defaults(rng: Rng):
    _, *rest = case(rng, ["plain", "infinite", "plain", "plain", "plain", "plain"])
    return {}, *rest


@suite.hidden(
    "small gradients",
    concept="half precision",
    note="These gradients vanish in float16 unless the loss is scaled.",
    tolerance=Tolerance(rtol=1e-4, atol=1e-12),
)
def small(rng: Rng):
    return case(rng, ["plain"] * 3, size=3e-4, scale=2.0**15)


@suite.hidden(
    "two backward passes for each step",
    concept="gradient accumulation",
    note="Gradients of several backward passes add up. Unscale once, before the step.",
)
def accumulated(rng: Rng):
    return case(rng, ["accumulated", "accumulated infinite", "accumulated clipped"])


@suite.hidden(
    "clipped gradients",
    concept="clipping",
    note="After unscale the gradients have their true size. The step must not divide again.",
)
def clipped(rng: Rng):
    return case(rng, ["clipped", "plain", "clipped", "clipped"])


@suite.hidden(
    "clipped gradients that overflow",
    concept="clipping",
    note="After a skipped step the next gradients are scaled again.",
)
def clipped_overflow(rng: Rng):
    return case(rng, ["clipped infinite", "clipped", "clipped nan", "plain"])


@suite.hidden(
    "infinite gradients that are replaced after unscale",
    concept="clipping",
    note="What counts is how the gradients were when they were unscaled. Remember it.",
)
def replaced(rng: Rng):
    return case(rng, ["replaced", "replaced infinite", "replaced nan", "plain"])


@suite.hidden(
    "unscale is called twice",
    concept="clipping",
    note="The second call is refused and changes nothing. After a step it is allowed again.",
)
def twice(rng: Rng):
    return case(rng, ["clipped twice", "clipped", "clipped twice nan", "clipped twice"])


@suite.hidden(
    "a parameter without a gradient",
    edge="a parameter without a gradient",
    note="A gradient may be None. Pass it over.",
)
def alone(rng: Rng):
    return case(rng, ["alone", "plain", "alone nan", "alone"])


@suite.hidden(
    "very large gradients that are finite",
    note="Sums and squares of finite numbers may overflow. Look at each number by itself.",
)
def huge(rng: Rng):
    return case(rng, ["huge", "huge", "huge infinite"], "plain", width=8, scale=1.0, interval=100)


@suite.generated("any script", times=3)
def any_script(rng: Rng):
    words = ["plain", "plain", "plain", "clipped", "infinite", "nan", "accumulated", "clipped both"]
    script = [rng.choice(words) for _ in range(rng.integer(4, 12))]
    kind = rng.choice(["momentum", "adam"])
    return case(
        rng, script, kind, scale=2.0 ** rng.integer(4, 12), interval=rng.integer(1, 4), growth=4.0
    )
