"""Tests of Which parameters decay."""

from etude.practice.suite import Rng, Suite

# Arguments are (name, kind, sizes) of each module, (tied module, parameter) pairs, frozen names.
suite = Suite()


@suite.visible("an embedding, a norm and a linear layer")
def small(rng: Rng):
    width = rng.integer(2, 6)
    parts = [
        ("embed", "embedding", (10, width)),
        ("ln_f", "layer norm", (width,)),
        ("head", "linear", (width, 3)),
    ]
    return parts, [], []


@suite.visible("a block with a frozen layer")
def block(rng: Rng):
    width = rng.integer(2, 6)
    parts = [
        ("block.norm", "rms norm", (width,)),
        ("block.up", "linear", (width, 8)),
        ("block.act", "activation", ()),
        ("block.down", "linear", (8, width)),
    ]
    return parts, [], ["block.up.weight", "block.up.bias"]


@suite.hidden("a model without parameters", edge="no parameters", note="Both lists are empty.")
def nothing(rng: Rng):
    return [("relu", "activation", ())], [], []


@suite.hidden(
    "a model that is one layer",
    edge="one layer",
    note="Names without a dot belong to the model itself.",
)
def single(rng: Rng):
    return [("", "linear", (3, rng.integer(1, 5)))], [], []


@suite.hidden(
    "a model that is one norm with a matrix",
    edge="one layer",
    note="The model itself may be a normalisation layer.",
)
def single_norm(rng: Rng):
    return [("", "layer norm", (rng.integer(2, 5), 3))], [], []


@suite.hidden(
    "norms whose names do not say so",
    concept="names",
    note="Ask for a module's class, not for its name.",
)
def unnamed(rng: Rng):
    parts = [
        ("h.ln_1", "layer norm", (4, rng.integer(2, 5))),
        ("h.attn", "linear", (4, 4)),
        ("h.scale", "group norm", (2, 4)),
        ("h.bn", "batch norm", (4,)),
    ]
    return parts, [], []


@suite.hidden(
    "matrices in modules called norm and bias",
    concept="names",
    note="Ask for a module's class, not for its name.",
)
def misleading(rng: Rng):
    parts = [
        ("norm_projection", "linear", (4, rng.integer(2, 5))),
        ("bias_table", "embedding", (7, 4)),
        ("layernorm.mix", "linear without bias", (4, 4)),
    ]
    return parts, [], []


@suite.hidden(
    "a norm over two dimensions", note="Weight and bias of this norm have two dimensions."
)
def wide_norm(rng: Rng):
    parts = [
        ("first", "linear", (4, 4)),
        ("middle", "layer norm", (rng.integer(2, 6), 4)),
        ("other", "rms norm", (3, 4)),
        ("last", "linear", (4, 2)),
    ]
    return parts, [], []


@suite.hidden(
    "an embedding tied to the head",
    concept="tied parameters",
    note="A tied parameter is listed once: the optimiser refuses the same one twice.",
)
def tied(rng: Rng):
    width = rng.integer(2, 6)
    parts = [
        ("embed", "embedding", (9, width)),
        ("norm", "rms norm", (width,)),
        ("head", "linear without bias", (width, 9)),
    ]
    return parts, [("head", "embed.weight")], []


@suite.hidden(
    "all frozen but a bias", concept="frozen parameters", note="Frozen ones are left out."
)
def only_bias(rng: Rng):
    parts = [("a", "linear", (3, 4)), ("b", "linear", (4, rng.integer(1, 5)))]
    return parts, [], ["a.weight", "a.bias", "b.weight"]


@suite.hidden(
    "parameters outside of layers",
    note="A parameter may belong to any module, with any dimensions.",
)
def bare(rng: Rng):
    parts = [
        ("temperature", "parameter", ()),
        ("adapter.A", "parameter", (2, rng.integer(3, 6))),
        ("adapter.B", "parameter", (4, 2)),
        ("adapter.gate", "parameter", (4,)),
        ("positions", "parameter", (1, 8, 4)),
    ]
    return parts, [], []


@suite.hidden("a convolution", note="Three dimensions are more than two.")
def convolution(rng: Rng):
    return [("conv", "convolution", (4, rng.integer(2, 6), 3)), ("bn", "batch norm", (4,))], [], []


@suite.hidden(
    "matrices with a dimension of 1", note="A matrix with one row is a matrix: count dimensions."
)
def thin(rng: Rng):
    return [("score", "linear", (rng.integer(2, 9), 1)), ("lift", "linear", (1, 4))], [], []


@suite.generated("a stack of blocks", times=2)
def stack(rng: Rng):
    width, parts = 4, [("embed", "embedding", (11, 4))]
    for index in range(rng.integer(1, 5)):
        parts.append((f"layers.{index}.n", rng.choice(["rms norm", "layer norm"]), (width,)))
        kind = rng.choice(["linear", "linear without bias"])
        parts.append((f"layers.{index}.mix", kind, (width, width)))
    return parts, [], [rng.choice(["embed.weight", "layers.0.mix.weight", "layers.0.n.weight"])]
