"""A teacher's scores of the training samples, made once and kept on disk for any number of runs.

They are of one teacher, one tokenizer, one temperature and one set of samples; a folder with scores
of others is refused. What is there is used, what is missing is made: a process that was killed
while it stored them is followed by one that makes the rest. A run whose scores are all there never
loads its teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from etude.core.errors import DataError, RecipeError
from etude.core.progress import Progress
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.score_store import (
    ABOUT,
    Scores,
    ScoresAbout,
    ScoreStore,
    data_hash,
    sample_key,
)
from etude.tuning.fusion.layout import row_layout
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.cross_entropy import CHUNK
from etude.tuning.objectives.distillation import AtHand, Read
from etude.tuning.objectives.stored_divergence import likeliest, sampled


@dataclass(frozen=True)
class TeacherIdentity:
    """Which teacher: its name, and the hash of its weights; None where they are not here."""

    name: str
    fingerprint: str | None


def stored_scores(
    recipe: Recipe,
    student: LoadedModel,
    samples: Sequence[EncodedSample],
    layout: Layout,
    identity: TeacherIdentity,
    teacher: Callable[[], AtHand],
    read: Read,
    progress: Progress,
) -> ScoreStore:
    """Return the recipe's stored scores of these samples, complete; make what is missing.

    Args:
        recipe: names their folder.
        student: the model in training, whose words they are over.
        samples: the training samples.
        layout: of the teacher's passes.
        identity: of the teacher.
        teacher: loads it, if it is needed.
        read: how the task asks it.
        progress: reports what is stored.

    Raises:
        DataError: the folder has scores of other data, or of another tokenizer or teacher.
        RecipeError: it has scores at another temperature, or of another kind.
        RunError: they cannot be written.
    """
    spec = recipe.objective
    assert spec.teacher_scores is not None
    folder = Path(spec.teacher_scores)
    unique = {sample_key(sample): sample for sample in samples}
    words = _words(student)
    wanted = ScoresAbout(
        spec.scores_kind,
        min(spec.scores_per_position, words)
        if spec.scores_kind == "top_k"
        else spec.scores_per_position,
        spec.teacher_temperature,
        words,
        recipe.train.seed,
        data_hash(list(unique)),
        _tokenizer_hash(student.tokenizer),
        identity.fingerprint or "",
        identity.name,
    )
    if (folder / ABOUT).exists():
        store = ScoreStore(folder)
        _require_same(store, wanted, folder)
    else:
        counts = [sample.trained_tokens for sample in unique.values()]
        store = ScoreStore.begin(folder, wanted, list(unique), counts)
    if lacking := store.lacking(list(unique.values())):
        raise DataError(
            f"{folder} has teacher scores of other data: {len(lacking):,} of {len(unique):,} "
            f"training samples have none ({lacking[0].origin}); name another folder by "
            "objective.teacher_scores"
        )
    if store.missing():
        if data_hash(list(unique)) != store.about.data:
            raise DataError(
                f"{folder} has teacher scores of more data than these, not all of them: make them "
                "with the data that they were begun with"
            )
        with store.alone(lambda: progress.start("Another process stores these scores", None)):
            if missing := store.missing():
                _fill(store, missing, unique, student, teacher(), read, layout, recipe, progress)
    return store


def in_words(store: ScoreStore) -> str:
    """Return what is stored, in words: kind, size, covered mass."""
    about = store.about
    kind = (
        f"the {about.per_position:,} likeliest of {about.words:,} words"
        if about.kind == "top_k"
        else f"{about.per_position:,} words drawn of {about.words:,}"
    )
    size = store.bytes
    return (
        f"stored scores in {store.folder}: {kind} at T = {about.temperature:g} for "
        f"{store.positions:,} positions, {100 * store.covered():.2f} % of the mass, "
        f"{size / 1e6:,.1f} MB ({size / max(store.positions, 1):,.0f} bytes a position)"
    )


def _fill(
    store: ScoreStore,
    missing: Sequence[int],
    samples: dict[str, EncodedSample],
    student: LoadedModel,
    teacher: AtHand,
    read: Read,
    layout: Layout,
    recipe: Recipe,
    progress: Progress,
) -> None:
    todo = sum(store.counts[sample] for number in missing for sample in store.files[number])
    progress.start("Storing the teacher's scores", todo, "positions")
    with torch.no_grad(), row_layout(student.model, layout):
        for number in missing:
            of_file = [samples[store.keys[sample]] for sample in store.files[number]]
            found: dict[int, NDArray[Any]] = {}
            lengths = [len(sample) for sample in of_file]
            for together in layout.micro_batches(lengths, recipe.train.micro_tokens):
                batch = Batch([of_file[index] for index in together], layout)
                known = teacher.known(student.model, batch, read)
                first = 0
                for index in together:
                    last = first + of_file[index].trained_tokens
                    found[index] = _records(store.about, of_file[index], known, slice(first, last))
                    progress.advance(last - first)
                    first = last
            store.write(number, np.concatenate([found[index] for index in range(len(of_file))]))
    progress.finish()


def _records(about: ScoresAbout, sample: EncodedSample, known: Any, place: slice) -> NDArray[Any]:
    """Return the records of a sample's positions, computed chunk by chunk."""
    records = np.zeros(place.stop - place.start, dtype=about.record)
    # The same draws of a sample, whatever was stored before it.
    seed = int(sample_key(sample)[:12], 16) ^ about.seed
    generator = torch.Generator().manual_seed(seed)
    for start in range(place.start, place.stop, CHUNK):
        stop = min(start + CHUNK, place.stop)
        logits = cast("torch.Tensor", known.logits(slice(start, stop), about.words)).float()
        if about.kind == "top_k":
            scores = likeliest(logits, about.per_position, about.temperature)
        else:
            shape = stop - start, about.per_position
            draws = torch.rand(shape, generator=generator, dtype=torch.float64)
            scores = sampled(logits, about.per_position, about.temperature, draws.to(logits.device))
        _put(records[start - place.start : stop - place.start], scores, about.per_position)
    return records


def _put(records: NDArray[Any], scores: Scores, draws: int) -> None:
    records["words"] = scores.words.cpu().numpy()
    records["log_p"] = scores.log_p.cpu().numpy()
    records["rest"] = scores.rest.cpu().numpy()
    if scores.shares is not None:
        records["counts"] = (scores.shares * draws).round().cpu().numpy()


def _require_same(store: ScoreStore, wanted: ScoresAbout, folder: Path) -> None:
    found = store.about
    for key, name in (
        ("temperature", "objective.teacher_temperature"),
        ("kind", "objective.scores_kind"),
        ("per_position", "objective.scores_per_position"),
    ):
        had, has = getattr(found, key), getattr(wanted, key)
        if had != has:
            raise RecipeError(
                f"{folder} has teacher scores with {name} {had}, the recipe says {has}; change "
                "that, or name another folder by objective.teacher_scores"
            )
    if found.tokenizer != wanted.tokenizer or found.words != wanted.words:
        raise DataError(
            f"{folder} has teacher scores of another tokenizer, or of other classes; name another "
            "folder by objective.teacher_scores"
        )
    if wanted.teacher and found.teacher and wanted.teacher != found.teacher:
        raise DataError(
            f"{folder} has scores of another teacher ({found.teacher_name}) than "
            f"{wanted.teacher_name}; name another folder by objective.teacher_scores"
        )


def _words(student: LoadedModel) -> int:
    """Return the words, or classes, that scores are over; rows of padding are none."""
    if student.head.is_new:
        return len(student.head.labels)
    return min(len(student.tokenizer), len(student.model.get_output_embeddings().weight))


def _tokenizer_hash(tokenizer: Any) -> str:
    words = sorted(cast("dict[str, int]", tokenizer.get_vocab()).items())
    return hashlib.blake2b(repr(words).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
