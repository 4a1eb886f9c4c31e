"""The same by transformers and PEFT, in float64 or in the configuration's own arithmetic."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from configurations import EMBEDDING, Configuration
from etude_side import LR, STEPS, load, modules_of
from peft import IA3Config, LoraConfig, PeftModel, VeraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from etude.tuning.adapters import bases
from etude.tuning.adapters.experts import AdaptedExperts
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.modules_to_save import ModuleToSave
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.quant.linear import QuantLinear

PREFIX = "base_model.model."
PLAIN = {"attn_implementation": "eager", "experts_implementation": "eager"}
"""The other implementations of experts know no float64."""


def base_like(model: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Return transformers' model with the weights that Etude's base stands for.

    Those are decoded codes where it is quantised, and include what an initialisation took.
    """
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **PLAIN)
    if made.config.vocab_size < model.config.vocab_size:
        made.resize_token_embeddings(model.config.vocab_size)
    with torch.no_grad():
        for path, module in made.named_modules():
            if not list(module.parameters(recurse=False)):
                continue
            held = _plain(model, path)
            for name, parameter in module.named_parameters(recurse=False):
                product = getattr(held, name) if isinstance(held, AdaptedExperts) else None
                if isinstance(product, torch.nn.Module):
                    product = product.base if isinstance(product, AdaptedLayer) else product
                    parameter.copy_(product.weight)
                    continue
                parameter.copy_(_weight(model, path, held, name))
    return made.eval().requires_grad_(False)


def _plain(model: Any, path: str) -> Any:
    module = model.get_submodule(path)
    return module.base if isinstance(module, AdaptedLayer | ModuleToSave) else module


def _weight(model: Any, path: str, held: Any, name: str) -> Tensor:
    layer = model.get_submodule(path)
    if name != "weight" or not isinstance(held, bases.Base):
        return getattr(held, name)
    matrix = bases.read_matrix(held).double()
    if isinstance(layer, AdaptedLayer) and layer.taken is not None:
        A, B = layer.taken.factors()
        matrix = matrix + layer.taken.scaling * B.double() @ A.double()
    return bases.as_stored(held, matrix) if not isinstance(held, QuantLinear) else matrix


def with_adapter(base: Any, adapter: Path, dtype: torch.dtype) -> Any:
    """Return PEFT's model of a saved adapter, trainable; in float64 the adapter is as well.

    PEFT gives each of two tied modules a copy of its own, where Etude trains one weight: where the
    folder is Etude's, the copies are made one, so that gradients and steps are of the same model.
    """
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if config.get("init_lora_weights") in ("pissa", "olora"):
        base = base.float()  # in which alone PEFT computes what these take from the base
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    ends: list[Any] = [base.get_input_embeddings(), base.get_output_embeddings()]
    if (adapter / "etude.json").exists() and all(hasattr(e, "modules_to_save") for e in ends):
        copies = [end.modules_to_save["default"] for end in ends]
        if base.config.tie_word_embeddings:
            copies[1].weight = copies[0].weight
    return model.eval().to(torch.float64) if dtype == torch.float64 else model.eval()


def loss(model: Any, samples: Sequence[EncodedSample]) -> Tensor:
    """Return the mean loss over the trained tokens, each sample by itself."""
    total: Any = 0.0
    for sample in samples:
        ids = torch.tensor(sample.input_ids, dtype=torch.long)[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        targets = torch.tensor(sample.input_ids[1:], dtype=torch.long)
        targets[~torch.tensor(sample.trained[1:])] = -100
        total = total + F.cross_entropy(wide, targets, ignore_index=-100, reduction="sum")
    return total / sum(sample.trained_tokens for sample in samples)


def gradients(model: Any, names: Sequence[str], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients by Etude's names, each in the shape of its namesake in `like`."""
    return {name: _gradient(model, name, like[name]) for name in names}


def _gradient(model: Any, name: str, like: Tensor) -> Tensor:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = [parameters[one].grad for one in _theirs(parameters, name)]
    gradient = sum(g for g in found if g is not None)
    if not isinstance(gradient, Tensor):
        return torch.zeros(like.shape, dtype=torch.float64)
    if gradient.dim() == like.dim() == 2 and gradient.numel() == 2 * like.numel():
        # Saved with the part taken from the base, which is not trained, as further ranks.
        gradient = gradient[tuple(slice(n) for n in like.shape)]
    return gradient.reshape(like.shape).double()


def _theirs(parameters: dict[str, Any], name: str) -> list[str]:
    """Return PEFT's name of a trained tensor."""
    path, _, part = name.rpartition(".")
    owner, _, weight = path.rpartition(".")
    if owner.endswith(".experts"):
        # Of two weights that are adapted, the one defined first is the inner.
        inner = f"{owner}.base_layer"
        both = f"{PREFIX}{inner}.{part}.default.weight" in parameters
        path = inner if both and weight != "down_proj" else owner
    for ending in (
        f"{part}.default.weight",
        f"{part}.default",
        f"{part.replace('lora_', 'lora_embedding_')}.default",
        f"modules_to_save.default.{part}",
        f"token_adapter.{part}.default",
        f"base_layer.{part}",
        part,
    ):
        if (full := f"{PREFIX}{path}.{ending}") in parameters:
            return [full]
    raise KeyError(name)


def steps(model: Any, samples: Sequence[EncodedSample], untrained: dict[str, Tensor]) -> None:
    """Train PEFT's model for three steps; ranks beyond those in `untrained` are left alone."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    chosen = [parameters[_theirs(parameters, name)[0]] for name in untrained]
    optimizer = torch.optim.AdamW(chosen, lr=LR, weight_decay=0.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model, samples).backward()
        for parameter, like in zip(chosen, untrained.values(), strict=True):
            if parameter.dim() == like.dim() == 2 and parameter.numel() == 2 * like.numel():
                wide = parameter.shape[0] != like.shape[0]
                rank = like.shape[0] if wide else like.shape[1]
                assert parameter.grad is not None
                (parameter.grad[rank:] if wide else parameter.grad[:, rank:]).zero_()
        optimizer.step()


def logits(model: Any, samples: Sequence[EncodedSample]) -> Tensor:
    """Return the logits of all tokens, each sample by itself, (T, V) float64."""
    with torch.no_grad():
        each = [
            model(input_ids=torch.tensor(s.input_ids, dtype=torch.long)[None], use_cache=False)
            for s in samples
        ]
    return torch.cat([one.logits[0].double() for one in each])


def config_of(configuration: Configuration) -> Any:
    """Return PEFT's configuration of an adapter that PEFT is to make."""
    targets, saved = modules_of(configuration)
    parameters = [f"experts.{name}" for name in configuration.experts]
    common: dict[str, Any] = {
        "target_modules": targets if isinstance(targets, str) else list(targets),
        **({"target_parameters": parameters} if parameters else {}),
        "modules_to_save": saved or None,
        "task_type": "CAUSAL_LM",
    }
    if configuration.targets == "one layer":
        name = targets[0].rpartition(".")[2]
        common["target_modules"] = rf".*\.1\..*{name}"
    if configuration.layers and configuration.targets != "one layer":
        if common["target_modules"] == "all-linear":
            common["target_modules"] = ["q_proj", "down_proj", "qkv_proj", "c_fc"]
        common["layers_to_transform"] = list(configuration.layers)
    if configuration.kind == "vera":
        return VeraConfig(r=configuration.rank, **common)
    if configuration.kind == "ia3":
        common.pop("layers_to_transform", None)
        names = common["target_modules"]
        if isinstance(names, list):
            common["feedforward_modules"] = [n for n in names if "down" in n or "c_proj" in n]
        else:
            common["feedforward_modules"] = r".*(down_proj|mlp\.c_proj)"
        return IA3Config(**common)
    tokens = {EMBEDDING.get(configuration.architecture, "embed_tokens"): list(configuration.tokens)}
    first = {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 5.0}}
    init = {"pissa": "pissa", "olora": "olora", "gaussian": "gaussian", "orthogonal": "orthogonal"}
    return LoraConfig(
        r=configuration.rank if configuration.init != "orthogonal" else 2 * configuration.rank,
        lora_alpha=configuration.alpha,
        use_rslora=configuration.rslora,
        use_dora=configuration.kind == "dora",
        bias=configuration.bias,
        init_lora_weights=init.get(configuration.init, True),
        trainable_token_indices=tokens if configuration.tokens else None,
        **(first if configuration.patterns and configuration.init != "orthogonal" else {}),
        **common,
    )


def made_by_peft(configuration: Configuration, folder: Path, adapter: Path) -> Any:
    """Let PEFT make and save an adapter with values as training leaves them; return its model."""
    base = base_like(load(configuration, folder).model, folder, torch.float32)
    base.config.name_or_path = str(folder)
    torch.manual_seed(configuration.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config_of(configuration))
        generator = torch.Generator().manual_seed(configuration.seed + 1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(adapter)
    return model.eval()
