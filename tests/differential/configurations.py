"""Configurations of adapters as functions of a seed, from the plain ones to odd combinations."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

ARCHITECTURES = (
    *("llama", "llama", "llama-biases", "mistral", "qwen2", "qwen2", "qwen3", "gemma", "phi3"),
    "gpt2",
)
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss")
"""Architectures with experts; drawn by the seeds from `FIRST_OF_MIXTURES` on."""

FIRST_OF_MIXTURES = 10_000
"""Before it, seeds draw what they always have."""

ATTENTION = {"phi3": ["qkv_proj", "o_proj"], "gpt2": ["c_attn"]}
MLP = {"phi3": ["gate_up_proj", "down_proj"], "gpt2": ["mlp.c_fc", "mlp.c_proj"]}
EMBEDDING = {"gpt2": "wte"}
NORM = {"gpt2": "ln_f"}
LAYERS = {"gpt2": "transformer.h"}

FUSED = ("llama", "llama-biases", "mistral", "qwen2")
"""Architectures whose layers are to run fused, whatever else is said of them."""


@dataclass(frozen=True)
class Configuration:
    """One adapter on one model; the defaults are the simplest there is."""

    seed: int = 0
    """Of the weights, the data and the adapter's values."""
    written_by: str = "etude"
    """`etude` or `peft`: who makes the adapter."""
    architecture: str = "llama"
    tied: bool = False
    kind: str = "lora"
    targets: str = "attention"
    """`attention`, `mlp`, `all-linear`, `embedding`, `head`, `one layer`; `none` beside experts."""
    rank: int = 4
    alpha: float = 8.0
    rslora: bool = False
    patterns: bool = False
    """Another rank in one module, another alpha in another."""
    saved: tuple[str, ...] = ()
    """Modules trained whole: `norm`, `head`, `embedding`."""
    init: str = "default"
    quant: str = "none"
    dtype: str = "float32"
    packed: bool = True
    fused: bool = True
    checkpointing: bool = False
    bias: str = "none"
    layers: tuple[int, ...] = ()
    """Decoder layers that are adapted; none named: all."""
    tokens: tuple[int, ...] = ()
    """PEFT's `trainable_token_indices` of the embedding."""
    added: int = 0
    """Tokens that Etude adds to the vocabulary (`model.add_tokens`)."""
    experts: tuple[str, ...] = ()
    """Weights of experts that are adapted (`target_parameters`)."""

    def to_json(self) -> str:
        """Return what differs from the simplest, as JSON."""
        plain = Configuration()
        changed = {k: v for k, v in asdict(self).items() if v != getattr(plain, k)}
        return json.dumps(changed, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Configuration:
        """Read what `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})

    def simpler(self) -> list[Configuration]:
        """Return the configurations with one option less."""
        plain = Configuration()
        found: list[Configuration] = []
        for field in fields(self):
            if getattr(self, field.name) != getattr(plain, field.name):
                one = replace(self, **{field.name: getattr(plain, field.name)})
                if one.possible():
                    found.append(one)
        return found

    def possible(self) -> bool:
        """Return whether the options go together."""
        head = "head" in (self.targets, *self.saved)
        embedding = "embedding" in (self.targets, *self.saved)
        rewriting = self.init in ("pissa", "olora", "loftq")
        rules = (
            self.kind == "lora" or self.init == "default",
            self.kind in ("lora", "dora") or not (self.patterns or self.rslora),
            self.kind in ("lora", "dora") or self.targets not in ("embedding",),
            self.init != "loftq" or self.quant != "none",
            # A matrix of the whole vocabulary is not decomposed; one end of two neither.
            not (rewriting and self.targets in ("embedding", "head")),
            not (self.quant == "none" and self.architecture == "gpt2" and rewriting),
            # bitsandbytes' layers of other programs are compared in tests of their own.
            self.written_by == "etude" or (self.quant == "none" and self.kind != "adalora"),
            self.written_by == "peft" or not self.tokens,
            self.kind == "lora" or not self.tokens,
            self.kind in ("lora", "dora") or self.bias == "none",
            self.targets not in ("embedding", "head") or self.targets not in self.saved,
            not (self.tokens and embedding),
            # PEFT keeps the two apart where one is trained: what is one weight here is two there.
            not (self.tied and self.tokens and head),
            self.architecture != "gpt2" or self.quant == "none",
            not (self.layers and self.targets in ("embedding", "head", "one layer")),
            self.targets != "one layer" or not self.patterns,
            self.packed or not self.fused,
            not self.added
            or (self.written_by == "etude" and self.kind in ("lora", "dora", "adalora")),
            # What is trained whole has the rows among its own; what is adapted has none.
            not (self.added and (self.targets in ("embedding", "head") or self.tokens)),
            not (self.patterns and self.targets == "none"),
            # PEFT's adapts the router, which is no Linear: refused by name.
            not (self.experts and self.written_by == "peft" and self.targets == "all-linear"),
            (self.targets == "none") <= bool(self.experts),
            bool(self.experts) <= (self.architecture in MIXTURES),
            not self.experts
            or (
                self.kind == "lora" and self.bias == "none" and self.init in ("default", "gaussian")
            ),
        )
        return all(rules)


def draw(seed: int) -> Configuration:
    """Return the configuration of a seed."""
    chance = random.Random(seed)
    while True:
        found = _draw(seed, chance)
        if seed >= FIRST_OF_MIXTURES:
            found = _with_more(found, chance)
        if found.possible():
            return found


def _with_more(found: Configuration, chance: random.Random) -> Configuration:
    """Return a configuration with added tokens, adapted experts, or both."""
    if chance.random() < 0.6:
        experts = chance.choice((("gate_up_proj", "down_proj"), ("gate_up_proj",), ("down_proj",)))
        found = replace(
            found,
            architecture=chance.choice(MIXTURES),
            experts=experts,
            targets=chance.choice(("attention", "none", "all-linear")),
        )
        if chance.random() < 0.5:
            return found
    return replace(found, added=chance.choice((1, 2, 5)))


def _draw(seed: int, chance: random.Random) -> Configuration:
    def maybe(often: float, *values: Any, plain: Any) -> Any:
        return chance.choice(values) if chance.random() < often else plain

    packed = maybe(0.25, False, plain=True)
    return Configuration(
        seed=seed,
        written_by=maybe(0.35, "peft", plain="etude"),
        architecture=chance.choice(ARCHITECTURES),
        tied=maybe(0.5, True, plain=False),
        kind=maybe(0.5, "dora", "dora", "vera", "adalora", "ia3", plain="lora"),
        targets=chance.choice(
            ("attention", "mlp", "all-linear", "all-linear", "embedding", "head", "one layer")
        ),
        rank=chance.choice((1, 2, 4, 6, 8)),
        alpha=chance.choice((4.0, 8.0, 12.5)),
        rslora=maybe(0.2, True, plain=False),
        patterns=maybe(0.2, True, plain=False),
        saved=maybe(0.3, ("norm",), ("head",), ("embedding",), ("embedding", "head"), plain=()),
        init=maybe(0.4, "gaussian", "orthogonal", "pissa", "olora", "loftq", plain="default"),
        quant=maybe(0.4, "nf4", "fp4", "int4", "int8", plain="none"),
        dtype=maybe(0.3, "bfloat16", plain="float32"),
        packed=packed,
        fused=packed and maybe(0.2, False, plain=True),
        checkpointing=maybe(0.15, True, plain=False),
        bias=maybe(0.2, "all", "lora_only", plain="none"),
        layers=maybe(0.15, (0,), (1,), plain=()),
        tokens=maybe(0.1, (3, 5, 40), plain=()),
    )
