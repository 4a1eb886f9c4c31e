"""Tests of Initialise an adapter and count it."""

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

suite = Suite(tolerance=Tolerance(rtol=1e-5, atol=1e-7))

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def config(hidden=32, heads=4, kv_heads=2, intermediate=48, layers=3, **more):
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "intermediate": intermediate,
        **more,
    }


def seed(rng: Rng) -> int:
    return rng.integer(0, 10**6)


@suite.visible("queries and values")
def two_targets(rng: Rng):
    return config(8, 4, 2, 12, 2), 2, ["q_proj", "v_proj"], seed(rng)


@suite.visible("a normal start for keys")
def gaussian_shown(rng: Rng):
    return config(8, 2, 1, 12, 2), 4, ["k_proj"], seed(rng), True


@suite.visible("a name with a typing error", raises=ValueError)
def typo_shown(rng: Rng):
    return config(), 2, ["q_proj", "vproj"], seed(rng)


@suite.hidden("all modules", note="Each module has its own inputs and outputs.")
def everything(rng: Rng):
    return config(), 4, ATTENTION + MLP, seed(rng)


@suite.hidden(
    "another order",
    concept="random generators",
    note="The factors are drawn in the order of the targets.",
)
def other_order(rng: Rng):
    names = ATTENTION + MLP
    return config(), 3, [names[i] for i in rng.permutation(7).tolist()], seed(rng)


@suite.hidden("rank one", edge="r = 1", note="With r = 1 each factor still has two dimensions.")
def rank_one(rng: Rng):
    return config(), 1, ["o_proj", "up_proj"], seed(rng)


@suite.hidden("rank one, normal", edge="r = 1", note="With r = 1 the standard deviation is 1.")
def rank_one_normal(rng: Rng):
    return config(), 1, ["o_proj", "up_proj"], seed(rng), True


@suite.hidden("one layer", edge="one layer", note="With one layer the count is that of a layer.")
def one_layer(rng: Rng):
    return config(layers=1), 8, MLP, seed(rng)


@suite.hidden(
    "one key head",
    edge="one key head",
    concept="grouped-query attention",
    note="With one key head k_proj has as many outputs as a head is wide.",
)
def one_group(rng: Rng):
    return config(kv_heads=1), 4, ATTENTION, seed(rng)


@suite.hidden(
    "as many key heads as heads",
    concept="grouped-query attention",
    note="Then all four modules of attention have the same shape.",
)
def no_groups(rng: Rng):
    return config(kv_heads=4), 4, ATTENTION, seed(rng)


@suite.hidden(
    "heads wider than the residual stream",
    concept="head width",
    note="With head_dim, H times e need not be d: q_proj and o_proj are not square then.",
)
def wide_heads(rng: Rng):
    return config(head_dim=16), 4, ATTENTION + MLP, seed(rng)


@suite.hidden(
    "a normal start",
    concept="initialisation",
    note="The standard deviation is 1 / r, whatever the inputs.",
)
def gaussian(rng: Rng):
    return config(), 8, ["gate_proj", "down_proj"], seed(rng), True


@suite.hidden(
    "a large model",
    concept="initialisation",
    note="The bound depends on the inputs n, which differ between modules.",
)
def large(rng: Rng):
    return (
        config(1024, 16, 8, 3072, 28, head_dim=128),
        8,
        ["q_proj", "v_proj", "down_proj"],
        seed(rng),
    )


@suite.hidden("many layers", note="All layers count, though one is returned.")
def deep(rng: Rng):
    return config(layers=rng.integer(50, 200)), 16, ATTENTION + MLP, seed(rng)


@suite.hidden("a rank above all widths", note="Nothing says that r is small.")
def high_rank(rng: Rng):
    return config(8, 2, 1, 12), 64, ["q_proj", "k_proj", "down_proj"], seed(rng)


@suite.hidden("a rank of zero", raises=ValueError, note="A rank is at least 1.")
def no_rank(rng: Rng):
    return config(), 0, ["q_proj"], seed(rng)


@suite.hidden("no targets", raises=ValueError, note="An adapter without targets trains nothing.")
def no_targets(rng: Rng):
    return config(), 4, [], seed(rng)


@suite.hidden("one name in many is wrong", raises=ValueError, note="Every name must be known.")
def one_wrong(rng: Rng):
    return config(), 4, [*ATTENTION, "gate_prj"], seed(rng)


@suite.hidden("a name twice", raises=ValueError, note="A module has one adapter.")
def twice(rng: Rng):
    return config(), 4, ["q_proj", "v_proj", "q_proj"], seed(rng)


@suite.hidden("key heads that do not divide the heads", raises=ValueError, note="H / G is whole.")
def odd_groups(rng: Rng):
    return config(kv_heads=3), 4, ["q_proj"], seed(rng)


@suite.generated("any model", times=4)
def any_model(rng: Rng):
    groups = rng.integer(1, 5)
    heads = groups * rng.integer(1, 4)
    hidden = heads * rng.integer(2, 9)
    more = {"head_dim": rng.integer(2, 20)} if rng.integer(0, 2) else {}
    names = ATTENTION + MLP
    targets = [names[i] for i in rng.permutation(7).tolist()[: rng.integer(1, 8)]]
    made = config(hidden, heads, groups, rng.integer(4, 100), rng.integer(2, 40), **more)
    return made, rng.integer(1, 17), targets, seed(rng), rng.integer(0, 2) == 1
