"""Checks of tagged words: schemes that are broken, types that are rare, misspelt or unknown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from etude.core.errors import DataError
from etude.tuning.data.check.findings import Entry, Finding, excerpt
from etude.tuning.data.tagging.schemes import SchemeEvidence, entities, is_broken

_RARE = 5
"""Entities of a type that are too few to learn from."""


class Tags:
    """Tags of words, of all rows together: their scheme is known after the last."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._evidence = SchemeEvidence()

    def see(self, entry: Entry) -> None:
        """Take in the tags of a row; rows of other tasks have none."""
        if entry.sample.tags:
            self._entries.append(entry)
            self._evidence.add(entry.sample.tags, entry.origin)

    def findings(self) -> Iterable[Finding]:
        """Return what is wrong with the tags."""
        if not self._entries:
            return
        try:
            scheme = self._evidence.scheme()
        except DataError as error:
            yield Finding(
                "mixed-tags",
                "error",
                "tags with and without a prefix",
                "a run would stop; write all tags in one scheme",
                rows=[row for tally in self._evidence.plain.values() for row in tally.first],
                examples=[str(error)],
            )
            return
        broken = Finding(
            "broken-tags",
            "warning",
            f"sentences whose tags break {scheme}",
            "they are read as conlleval does (data.broken_tags), perhaps not as they were meant",
        )
        rows: dict[str, defaultdict[str, list[str]]] = {
            "train": defaultdict(list),
            "eval": defaultdict(list),
        }
        for entry in self._entries:
            sample = entry.sample
            if is_broken(sample.tags, scheme):
                broken.add(entry.origin, f"{entry.origin}: {excerpt(' '.join(sample.tags))}")
            for entity in entities(sample.tags, scheme):
                rows[entry.side][entity.type].append(entry.origin)
        if broken.rows:
            yield broken
        yield from self._types(rows["train"], rows["eval"])

    def _types(
        self, train: dict[str, list[str]], held_out: dict[str, list[str]]
    ) -> Iterable[Finding]:
        trained = [entry for entry in self._entries if entry.side == "train"]
        if not train and trained:
            yield Finding(
                "no-entities",
                "error",
                "no training row has an entity",
                "there is nothing to find; name the column of the tags (data.tags)",
                rows=[entry.origin for entry in trained],
            )
            return
        unseen = {name: of for name, of in held_out.items() if name not in train}
        if unseen:
            yield Finding(
                "unseen-types",
                "error",
                "types of entities that only the evaluation data have",
                "they cannot be found; correct the tags, or add training rows",
                rows=_each_once(unseen),
                examples=[f"{name!r}: {len(of)}" for name, of in list(unseen.items())[:3]],
            )
        rare = {name: of for name, of in train.items() if len(of) < _RARE}
        if rare:
            yield Finding(
                "rare-types",
                "note",
                f"types with fewer than {_RARE} entities",
                "too few to learn from; add rows, or merge the types",
                rows=_each_once(rare),
                examples=[f"{name!r}: {len(of)}" for name, of in list(rare.items())[:3]],
            )
        spellings: defaultdict[str, list[str]] = defaultdict(list)
        for name in train:
            spellings[name.lower().replace("_", "-")].append(name)
        several = [sorted(names) for names in spellings.values() if len(names) > 1]
        if several:
            rarer = {
                name: train[name]
                for names in several
                for name in sorted(names, key=lambda one: -len(train[one]))[1:]
            }
            yield Finding(
                "type-spelling",
                "warning",
                "types that differ only in case or a dash",
                "the model must guess the spelling; use one",
                rows=_each_once(rarer),
                examples=[", ".join(map(repr, names)) for names in several[:3]],
            )


def _each_once(rows: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(row for of in rows.values() for row in of))
