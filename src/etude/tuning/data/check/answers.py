"""Checks of prompts and answers: empty, out of order, leaked, imbalanced."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise

from etude.tuning.data.check.findings import Entry, Finding, excerpt, found
from etude.tuning.data.check.repeats import normal
from etude.tuning.data.labels import labels_of

FIX_EMPTY = "drops the rows whose only answer is empty"

_MOST_LABELS = 200
_LONGEST_LABEL = 60
_ROWS_A_LABEL = 5
"""Answers are taken for labels where each stands this often on average."""

_MAJORITY = 0.8
_RARE = 5
_LEAKED = 12
"""Letters that an answer must have to be looked for in its prompt: `yes` is in many."""


class Answers:
    """Turns of a conversation, and the answers one by one."""

    def __init__(self) -> None:
        self.empty = Finding(
            "empty-answers",
            "error",
            "empty answers",
            "the model learns to answer with nothing",
            fix=FIX_EMPTY,
        )
        self.unasked = Finding(
            "empty-prompts",
            "warning",
            "empty prompts",
            "the answer does not depend on a question; drop the rows",
        )
        self.order = Finding(
            "role-order",
            "warning",
            "conversations with turns out of order",
            "such conversations do not occur in use; merge or drop the turns",
        )
        self.same = Finding(
            "identical-pair",
            "error",
            "pairs with identical answers",
            "they express no preference; drop the rows",
        )
        self.given = Finding(
            "given-away",
            "warning",
            "prompts that contain their whole answer",
            "the model learns to copy; expected only in tasks that extract text",
        )
        self._given_possible = 0

    def see(self, entry: Entry) -> None:
        """Look at the turns."""
        sample, origin = entry.sample, entry.origin
        if sample.text is not None:
            # Of labelled texts, see `classes`.
            if not sample.text.strip() and sample.label is None:
                self.empty.add(origin, origin)
            return
        learnt = sample.messages[sample.context :]
        turns = [turn for turn in learnt if turn.role == "assistant" and turn.trained]
        if any(turn.is_empty for turn in (*turns, *sample.rejected[-1:])):
            self.empty.add(origin, origin)
        if any(t.is_empty for t in sample.messages if t.role == "user"):
            self.unasked.add(origin, origin)
        if wrong := _out_of_order([turn.role for turn in sample.messages]):
            self.order.add(origin, f"{origin}: {wrong}")
        if sample.rejected and normal(sample.rejected[-1].content) == normal(
            sample.messages[-1].content
        ):
            self.same.add(origin, f"{origin}: {excerpt(sample.messages[-1].content)}")
        answer = normal(entry.answers[-1]) if entry.answers else ""
        if len(answer) >= _LEAKED:
            self._given_possible += 1
            if answer in normal(entry.prompt):
                self.given.add(origin, f"{origin}: {excerpt(answer)}")

    def findings(self) -> Iterable[Finding]:
        """Return what was wrong with the turns."""
        if self.given.count > 0.5 * self._given_possible:
            self.given.severity = "note"
        return found(self.empty, self.unasked, self.order, self.same, self.given)


def _out_of_order(roles: list[str]) -> str | None:
    if "system" in roles[1:]:
        return "a system message after the first turn"
    talk = [role for role in roles if role != "system"]
    if talk and talk[0] == "assistant":
        return "it begins with the assistant"
    for earlier, later in pairwise(talk):
        if earlier == later != "tool":
            return f"two turns of the {earlier} in a row"
    return f"it ends with the {talk[-1]}" if talk and talk[-1] != "assistant" else None


class Labels:
    """Answers that are one of a few labels, and verdicts: their shares."""

    def __init__(self) -> None:
        self._rows: dict[str, defaultdict[str, list[str]]] = {
            "train": defaultdict(list),
            "eval": defaultdict(list),
        }
        self._total: Counter[str] = Counter()
        self._desirable: Counter[bool] = Counter()
        self._many = False
        self._classes = False

    def see(self, entry: Entry) -> None:
        """Count the answer."""
        if entry.sample.desirable is not None:
            self._desirable[entry.sample.desirable] += 1
        if self._many or entry.sample.rejected:
            return
        if entry.sample.label is not None:
            self._classes = True
            self._total[entry.side] += 1
            for label in labels_of(entry.sample):
                self._rows[entry.side][label].append(entry.origin)
            return
        if entry.sample.text is not None:
            return
        answer = entry.answers[-1] if entry.answers else ""
        self._total[entry.side] += 1
        self._rows[entry.side][answer].append(entry.origin)
        # Free text: no need to keep it all.
        train = self._rows["train"]
        if len(answer) > _LONGEST_LABEL or len(train) > max(_MOST_LABELS, 1):
            self._many = True
            for rows in self._rows.values():
                rows.clear()

    def findings(self) -> Iterable[Finding]:
        """Return what is out of balance."""
        yield from self._verdicts()
        train = self._rows["train"]
        total = self._total["train"]
        if self._many or len(train) < 2 or total < _ROWS_A_LABEL * len(train):
            return
        label, rows = max(train.items(), key=lambda item: len(item[1]))
        shares = ", ".join(
            f"{name!r} {len(of):,}" for name, of in sorted(train.items(), key=_by_count)[:6]
        )
        if len(rows) > _MAJORITY * total:
            yield Finding(
                "label-imbalance",
                "warning",
                f"{len(rows) / total:.0%} of the answers are {label!r}",
                "a constant answer scores as much; evaluate by macro-F1, and weight the others more"
                + (" (objective.class_weights, train.sampling)" if self._classes else ""),
                rows=[row for name, of in train.items() if name != label for row in of] or rows,
                examples=[f"of {total:,}: {shares}"],
            )
        rare = {name: of for name, of in train.items() if len(of) < _RARE}
        if rare and total >= 20 * len(train):
            yield Finding(
                "rare-labels",
                "note",
                f"labels with fewer than {_RARE} rows",
                "too few to learn from; add rows, or merge the labels",
                rows=[row for of in rare.values() for row in of],
                examples=[f"{name!r}: {len(of)}" for name, of in list(rare.items())[:3]],
            )
        yield from self._written_differently(train)
        unseen = {n: of for n, of in self._rows["eval"].items() if n not in train}
        if unseen and self._rows["eval"] and not self._classes:
            yield Finding(
                "unseen-labels",
                "error",
                "evaluation rows with labels that are not in the training data",
                "they cannot be predicted; split the data so that every label is in both parts",
                rows=[row for of in unseen.values() for row in of],
                examples=[f"{name!r}: {len(of)}" for name, of in list(unseen.items())[:3]],
            )

    def _verdicts(self) -> Iterable[Finding]:
        total = self._desirable.total()
        if total < 20:
            return
        share = self._desirable[True] / total
        if not 0.1 <= share <= 0.9:
            yield Finding(
                "verdict-imbalance",
                "warning",
                f"{share:.0%} of the unpaired preferences are desirable",
                "set objective.desirable_weight and undesirable_weight so that share times weight "
                "is about equal on both sides (Ethayarajh et al. 2024, section 4.2)",
                rows=[f"{total:,} answers"],
            )

    def _written_differently(self, train: defaultdict[str, list[str]]) -> Iterable[Finding]:
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for name in train:
            groups[normal(name).strip(" .!:;\"'")].append(name)
        several = {key: names for key, names in groups.items() if len(names) > 1}
        if several:
            rarer = [n for names in several.values() for n in sorted(names, key=_order(train))[1:]]
            yield Finding(
                "label-spelling",
                "warning",
                "labels that differ only in case, white space or punctuation",
                "the model must guess the spelling; use one spelling per label",
                rows=[row for name in rarer for row in train[name]],
                examples=[", ".join(map(repr, names)) for names in list(several.values())[:3]],
            )


def _by_count(item: tuple[str, list[str]]) -> int:
    return -len(item[1])


def _order(train: defaultdict[str, list[str]]) -> Callable[[str], int]:
    return lambda name: -len(train[name])
