"""The peer: TRL's SFTTrainer with PEFT, and bitsandbytes for QLoRA, on one settings file.

    .venv-peer/bin/python train_trl.py SETTINGS.json

The settings it is given are the same as Etude's (model folder, rows, rank, alpha, batch, learning
rate of every step). What is left is set to what is fastest on a CPU without changing what is
learnt, each found in TRL 1.16's own options:

- weights in bfloat16 and bfloat16 autocast (`bf16`, TRL's default) where the processor multiplies
  that, else float32; adapters as TRL makes them;
- no gradient checkpointing (TRL's default is on: it would cost a second forward pass);
- batches of like length (`group_by_length`), so that little is padded, four samples each: the
  fastest of 2, 4 and 8 (8 takes half as long again, and twice the memory). Packing and
  padding-free batches need FlashAttention, that is CUDA;
- rows as conversational prompt and completion, so that the loss is on the answers; TRL's loss
  does not build the logits of positions that are not trained;
- where `order` is given, the samples of each step are Etude's, which costs padding and is no
  measure of speed;
- no checkpoints, no evaluation, no progress bar inside the timed part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from ruler import Ruler
from torch.optim.lr_scheduler import LambdaLR
from transformers import BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Timed(TrainerCallback):
    """Passes the trainer's events on to the ruler."""

    def __init__(self, ruler: Ruler) -> None:
        self.ruler = ruler

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The loop begins."""
        del args, state, control, rest
        self.ruler.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """An optimiser step has ended."""
        del args, state, control, rest
        self.ruler.step()


class CountingTrainer(SFTTrainer):
    """SFTTrainer that takes the learning rate of each step from a list, and counts tokens."""

    def __init__(self, rates: list[float], **options: Any) -> None:
        self.rates = rates
        self.tokens = self.trained_tokens = self.computed_tokens = 0
        super().__init__(**options)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Follow the list: the library's own schedules are half a step off Etude's."""
        del num_training_steps
        if self.lr_scheduler is None:
            peak = self.args.learning_rate
            # Asked once more after the last step, for a step that never comes.
            rates = [*self.rates, 0.0]
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda s: rates[s] / peak)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        """Count what goes in, then do the step."""
        self.tokens += int(inputs["attention_mask"].sum())
        self.computed_tokens += inputs["input_ids"].numel()
        self.trained_tokens += int((inputs["labels"][:, 1:] != -100).sum())
        return super().training_step(model, inputs, *rest, **more)


def rows(file: str, order: list[int] | None) -> Dataset:
    """Read conversations, in `order` where it is given; the last message is the completion."""
    lines = Path(file).read_text("utf-8").splitlines()
    talks = [json.loads(line)["messages"] for line in lines]
    if order:
        talks = [talks[index] for index in order]
    return Dataset.from_list([{"prompt": t[:-1], "completion": t[-1:]} for t in talks])


def quantization(method: str, dtype: str) -> BitsAndBytesConfig | None:
    """Return QLoRA's base: NF4, blocks of 64, double-quantised, computing in `dtype`."""
    if method == "lora":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    ruler = Ruler(settings["launched"])
    torch.set_num_threads(settings["threads"])
    output = Path(settings["output"])
    trainer = CountingTrainer(
        settings["rates"],
        model=settings["model"],
        train_dataset=rows(settings["train"], settings["order"]),
        quantization_config=quantization(settings["method"], settings["dtype"]),
        peft_config=LoraConfig(
            r=settings["rank"],
            lora_alpha=settings["alpha"],
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[Timed(ruler)],
        args=SFTConfig(
            output_dir=str(output / "trainer"),
            model_init_kwargs={"dtype": settings["dtype"]},
            bf16=settings["dtype"] == "bfloat16",
            use_cpu=True,
            max_length=settings["max_length"],
            max_steps=len(settings["rates"]),
            per_device_train_batch_size=settings["micro_batch"],
            gradient_accumulation_steps=settings["batch_samples"] // settings["micro_batch"],
            train_sampling_strategy="sequential" if settings["order"] else "group_by_length",
            learning_rate=max(settings["rates"]),
            weight_decay=0.0,
            max_grad_norm=settings["clip"],
            gradient_checkpointing=False,
            completion_only_loss=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=settings["seed"],
        ),
    )
    trained = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    if settings["adapter_dtype"] == "float32":
        # Against TRL, which rounds a quantised model's adapters to bfloat16; see the README.
        for parameter in trained.values():
            parameter.data = parameter.data.float()
    trainer.train()
    trainer.save_model(str(output / "adapter"))
    ruler.record(
        settings["record"],
        tokens=trainer.tokens,
        trained_tokens=trainer.trained_tokens,
        computed_tokens=trainer.computed_tokens,
        losses=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        trainable_parameters=sum(p.numel() for p in trained.values()),
        adapter_dtypes=sorted({str(p.dtype).removeprefix("torch.") for p in trained.values()}),
    )


if __name__ == "__main__":
    main()
