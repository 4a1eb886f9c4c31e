"""Tests of Load a checkpoint that nearly fits."""

import torch

from etude.practice.compare import Tolerance
from etude.practice.suite import Rng, Suite

# Arguments: the kind of model and its width (driver.py builds it), the checkpoint, the renames, and
# whether an error is caught, to look at the model afterwards.
suite = Suite(tolerance=Tolerance(rtol=1e-6, atol=1e-7))


def shapes(kind: str, width: int) -> dict[str, tuple[int, ...]]:
    if kind == "empty":
        return {}
    if kind == "norm":
        return {
            "0.weight": (3, width),
            "0.bias": (3,),
            "1.weight": (3,),
            "1.bias": (3,),
            "1.running_mean": (3,),
            "1.running_var": (3,),
            "1.num_batches_tracked": (),
            "2.weight": (2, 3),
            "2.bias": (2,),
        }
    return {
        "embed.weight": (5, width),
        "body.norm.weight": (width,),
        "body.norm.bias": (width,),
        "body.mix.weight": (width, width),
        "body.mix.bias": (width,),
        "head.weight": (5, width),
    }


def whole(rng: Rng, kind: str, width: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return a checkpoint that fits, its keys in a random order."""
    names = list(shapes(kind, width).items())
    made = {}
    for place in rng.permutation(len(names)).tolist():
        name, shape = names[place]
        value = rng.randn(*shape)
        if name.endswith("tracked"):
            value = torch.tensor(rng.integer(1, 1000))
        made[prefix + name] = value
    if kind == "tied":
        made[prefix + "head.weight"] = made[prefix + "embed.weight"].clone()
    return made


@suite.visible("a wrapper's prefix")
def wrapped(rng: Rng):
    return "plain", 3, whole(rng, "plain", 3, "module."), [("module.", "")], False


@suite.visible("missing and unexpected")
def partial_shown(rng: Rng):
    checkpoint = whole(rng, "plain", 2)
    del checkpoint["head.weight"], checkpoint["body.norm.bias"]
    return "plain", 2, checkpoint | {"classifier.weight": rng.randn(2, 2)}, [], False


@suite.visible("a shape that differs", raises=ValueError)
def shape_shown(rng: Rng):
    return "plain", 3, whole(rng, "plain", 3) | {"head.weight": rng.randn(6, 3)}, [], False


@suite.hidden("an empty checkpoint", edge="an empty checkpoint", note="Then all names are missing.")
def empty_checkpoint(rng: Rng):
    return "plain", rng.integer(1, 5), {}, [], False


@suite.hidden(
    "an empty checkpoint for tied parameters",
    edge="an empty checkpoint",
    note="If nothing is loaded, both names of a tied parameter are missing.",
)
def empty_tied(rng: Rng):
    return "tied", rng.integer(2, 5), {}, [], False


@suite.hidden(
    "a model without parameters",
    edge="a model without parameters",
    note="Then all keys are unexpected.",
)
def no_parameters(rng: Rng):
    return "empty", 1, {"weight": rng.randn(2), "bias": rng.randn(1)}, [], False


@suite.hidden(
    "a tied parameter under its first name",
    edge="tied parameters",
    concept="tied parameters",
    note="A name that is tied to a loaded one is not missing.",
)
def tied_first(rng: Rng):
    checkpoint = whole(rng, "tied", 3)
    del checkpoint["head.weight"]
    return "tied", 3, checkpoint, [], False


@suite.hidden(
    "a tied parameter under its second name",
    edge="tied parameters",
    concept="tied parameters",
    note="A name that is tied to a loaded one is not missing, whichever of them it is.",
)
def tied_second(rng: Rng):
    checkpoint = whole(rng, "tied", 3)
    del checkpoint["embed.weight"]
    return "tied", 3, checkpoint, [], False


@suite.hidden(
    "a tied parameter under both names",
    edge="tied parameters",
    concept="tied parameters",
    note="Equal values under both names are fine, and both names are loaded.",
)
def tied_both(rng: Rng):
    return "tied", 4, whole(rng, "tied", 4), [], False


@suite.hidden(
    "an untied checkpoint for a tied model",
    edge="tied parameters",
    concept="tied parameters",
    raises=ValueError,
    note="Two different tables cannot both be in one tensor: one would be lost.",
)
def untied(rng: Rng):
    return "tied", 3, whole(rng, "tied", 3) | {"head.weight": rng.randn(5, 3)}, [], False


@suite.hidden(
    "a shape with a dimension of 1",
    raises=ValueError,
    concept="broadcasting",
    note="copy_ broadcasts: one row would be written into all.",
)
def broadcast(rng: Rng):
    return "plain", 3, whole(rng, "plain", 3) | {"embed.weight": rng.randn(1, 3)}, [], False


@suite.hidden(
    "a scalar for a vector",
    raises=ValueError,
    concept="broadcasting",
    note="copy_ broadcasts: one number would be written into all places.",
)
def scalar(rng: Rng):
    return "plain", 3, whole(rng, "plain", 3) | {"body.mix.bias": rng.randn()}, [], False


@suite.hidden("a transposed matrix", raises=ValueError, note="The number of elements says nothing.")
def turned(rng: Rng):
    return "plain", 3, whole(rng, "plain", 3) | {"head.weight": rng.randn(3, 5)}, [], False


@suite.hidden(
    "the model after a wrong shape",
    concept="all or nothing",
    note="Check everything first, then write. Otherwise the model is half loaded.",
)
def atomic_shape(rng: Rng):
    return "plain", 3, whole(rng, "plain", 3) | {"head.weight": rng.randn(6, 3)}, [], True


@suite.hidden(
    "the model after tied values that differ",
    concept="all or nothing",
    note="Check everything first, then write. Otherwise the model is half loaded.",
)
def atomic_tied(rng: Rng):
    return "tied", 3, whole(rng, "tied", 3) | {"head.weight": rng.randn(5, 3)}, [], True


@suite.hidden(
    "two keys for one name",
    raises=ValueError,
    concept="renaming",
    note="One of the two tensors would be lost.",
)
def collision(rng: Rng):
    checkpoint = whole(rng, "plain", 3) | {"module.head.weight": rng.randn(5, 3)}
    return "plain", 3, checkpoint, [("module.", "")], False


@suite.hidden(
    "a prefix that occurs again inside",
    concept="renaming",
    note="Only the beginning of a key is replaced, and only once.",
)
def inside(rng: Rng):
    checkpoint = whole(rng, "plain", 3, "body.")
    return "plain", 3, checkpoint | {"x.body.norm.weight": rng.randn(3)}, [("body.", "")], False


@suite.hidden(
    "several renames, of which the first counts",
    concept="renaming",
    note="The first pair that applies decides; the result is not renamed again.",
)
def first_counts(rng: Rng):
    made = whole(rng, "plain", 3)
    checkpoint = {
        "a." + key if key.startswith("body.") else "a.b." + key: value
        for key, value in made.items()
    }
    return "plain", 3, checkpoint, [("a.b.", ""), ("a.", ""), ("body.", "trunk.")], False


@suite.hidden(
    "buffers",
    concept="buffers",
    note="Running means are no parameters, but they are in the state dict.",
)
def buffers(rng: Rng):
    width = rng.integer(2, 6)
    return "norm", width, whole(rng, "norm", width), [], False


@suite.hidden(
    "a buffer that is not persistent",
    concept="buffers",
    note="The model's state dict decides which names there are.",
)
def not_persistent(rng: Rng):
    return "plain", 3, whole(rng, "plain", 3) | {"body.angles": rng.randn(3)}, [], False


@suite.hidden("frozen parameters", note="Frozen parameters are loaded too, and stay frozen.")
def frozen(rng: Rng):
    return "frozen", 3, whole(rng, "frozen", 3), [], False


@suite.hidden(
    "a checkpoint in bfloat16", concept="dtypes", note="The model's type stays, values convert."
)
def from_half(rng: Rng):
    checkpoint = {key: value.bfloat16() for key, value in whole(rng, "plain", 4).items()}
    return "plain", 4, checkpoint, [], False


@suite.hidden(
    "a tied model in float16",
    concept="dtypes",
    note="Compare tied values after conversion: they may differ in digits that the model has not.",
)
def to_half(rng: Rng):
    checkpoint = {key: value.half().double() for key, value in whole(rng, "half", 4).items()}
    checkpoint["head.weight"] = checkpoint["embed.weight"] * (1 + 1e-6)
    return "half", 4, checkpoint, [], False


@suite.hidden("transposed views", concept="memory layout")
def transposed(rng: Rng):
    checkpoint = whole(rng, "plain", 3)
    checkpoint["head.weight"] = rng.randn(3, 5).T
    return "plain", 3, checkpoint, [], False


@suite.generated("any part of a checkpoint", times=3)
def parts(rng: Rng):
    kind, width = rng.choice(["plain", "norm", "tied"]), rng.integer(1, 6)
    keep = {
        key: value for key, value in whole(rng, kind, width, "m.").items() if rng.number(0, 1) < 0.6
    }
    return kind, width, keep | {"m.extra": rng.randn(2)}, [("m.", "")], False
