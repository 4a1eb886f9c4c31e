"""Rows with several answers: which are trained, and what a generated answer is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.disk_buffer import DiskBuffer
from etude.tuning.data.schema import Message, Sample


def for_training(
    samples: Sequence[Sample], spec: DataSpec, seed: int
) -> tuple[Sequence[Sample], list[str]]:
    """Return training samples with one answer each, and a note if rows had several.

    A row with a list of answers becomes a sample for each, or one of them as `data.references`
    says. Which one is drawn depends on the row and the seed alone.
    """
    several = sum(len(sample.references) > 1 for sample in samples)
    if not several:
        return samples, []
    expanded = DiskBuffer()
    for sample in samples:
        for answer in _trained(sample, spec, seed):
            expanded.append(_with_answer(sample, answer))
    how = (
        "each answer is trained"
        if spec.references == "all"
        else "one answer of each is trained, drawn by the seed"
    )
    return expanded, [
        f"training: {several:,} rows have several answers; {how} (data.references "
        f"{spec.references}): {len(expanded):,} samples"
    ]


def _trained(sample: Sample, spec: DataSpec, seed: int) -> Sequence[str | None]:
    if len(sample.references) < 2:
        return (None,)
    if spec.references == "all":
        return sample.references
    digest = hashlib.blake2b(f"{seed}\0{sample.origin}".encode(), digest_size=8).digest()
    return (sample.references[int.from_bytes(digest, "big") % len(sample.references)],)


def _with_answer(sample: Sample, answer: str | None) -> Sample:
    """Return the sample with another last answer; None keeps its own."""
    if answer is None:
        return sample
    last = replace(sample.messages[-1], content=answer)
    return replace(sample, messages=(*sample.messages[:-1], last), references=())


def questions(
    samples: Iterable[Sample], count: int, *, every_turn: bool = False
) -> list[tuple[Sample, tuple[str, ...]]]:
    """Return up to `count` different prompts, each with the answers that its rows have.

    Rows with the same prompt are one question: their answers are references of it. Answers that are
    marked undesirable are none. A sample without text answers (tool calls) has no references here.

    Args:
        samples: evaluation samples, in order.
        count: of prompts.
        every_turn: ask for every answer of a conversation, not for the last one only.
    """
    found: dict[tuple[object, ...], tuple[Sample, list[str]]] = {}
    for sample in samples:
        if not sample.messages or sample.desirable is False:
            continue
        for asked in _asked(sample, every_turn=every_turn):
            prompt, answer = asked.messages[:-1], asked.messages[-1]
            key = (*(message.canonical() for message in prompt), repr(asked.tools))
            if key not in found:
                if len(found) == count:
                    continue
                found[key] = (asked, [])
            last = asked.messages == sample.messages
            given = sample.references if last and sample.references else (answer.content,)
            found[key][1].extend(text for text in given if text.strip())
    return [(sample, tuple(dict.fromkeys(texts))) for sample, texts in found.values()]


def _asked(sample: Sample, *, every_turn: bool) -> list[Sample]:
    """Return the sample up to its last answer, or up to each; none before its context."""
    places = [
        place
        for place, turn in enumerate(sample.messages)
        if turn.role == "assistant" and place >= sample.context
    ]
    return [_until(sample, place) for place in (places if every_turn else places[-1:])]


def _until(sample: Sample, place: int) -> Sample:
    turns: tuple[Message, ...] = sample.messages[: place + 1]
    return sample if len(turns) == len(sample.messages) else replace(sample, messages=turns)
