"""The application that each verb registers itself on."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="etude",
    help="Study, practise and do fine-tuning of language models with LoRA and QLoRA.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
