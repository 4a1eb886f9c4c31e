"""Multiple-choice questions of all subjects: MMLU's development set, as lm-eval's wheel carries it.

MMLU (Hendrycks et al. 2021, arXiv:2009.03300) holds five questions a subject for prompts of few
shots. lm-evaluation-harness has them in a file of its package, with reasoning that is cut off here.
They are asked without examples, in the harness's own wording, and the model's answer is the letter
that it gives the highest probability after `Answer:`.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

from etude.core.errors import DataError

LETTERS = "ABCD"
PLACE = ("tasks", "mmlu", "flan_cot_fewshot", "_cot_prompts.json")

_QUESTION = re.compile(
    r"Q: (?P<question>.+?)\n"
    r"\(A\) (?P<A>.+?)\s\(B\) (?P<B>.+?)\s\(C\) (?P<C>.+?)\s\(D\) (?P<D>.+?)\n"
    r"A: .*answer is \((?P<right>[A-D])\)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Question:
    """A question with four answers, of which one is right."""

    subject: str
    text: str
    answers: tuple[str, str, str, str]
    right: int
    """Index of the right answer."""

    @property
    def prompt(self) -> str:
        """The question as lm-evaluation-harness puts it, up to where the letter follows."""
        subject = self.subject.replace("_", " ")
        choices = "\n".join(
            f"{letter}. {answer}" for letter, answer in zip(LETTERS, self.answers, strict=True)
        )
        return (
            f"The following are multiple choice questions (with answers) about {subject}.\n\n"
            f"{self.text}\n{choices}\nAnswer:"
        )


def questions_file() -> Path | None:
    """Return the file of the installed lm-eval; None if it is not installed."""
    found = importlib.util.find_spec("lm_eval")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        file = Path(folder).joinpath(*PLACE)
        if file.is_file():
            return file
    return None


def read_questions(file: Path) -> list[Question]:
    """Return the questions with exactly four answers, by subject.

    Raises:
        DataError: the file is not the one that it should be.
    """
    try:
        subjects: dict[str, str] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    found: list[Question] = []
    for subject, text in sorted(subjects.items()):
        for block in re.split(r"\n\n(?=Q: )", text)[1:]:
            match = _QUESTION.match(block)
            if match is None or "(E)" in match["D"]:
                continue
            answers = (match["A"], match["B"], match["C"], match["D"])
            right = LETTERS.index(match["right"])
            found.append(Question(subject, match["question"].strip(), answers, right))
    if not found:
        raise DataError(f"{file} holds no questions in the form that is expected")
    return found
