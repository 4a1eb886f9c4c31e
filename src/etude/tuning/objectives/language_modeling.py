"""Language modelling: cross-entropy of every token of a document."""

from __future__ import annotations

from etude.tuning.objectives.base import SFT


class LanguageModelingLoss(SFT):
    """Cross-entropy over all tokens of documents, end tokens included.

    The computation is that of answers; only what a token is differs.
    """

    unit = "nats per token"
