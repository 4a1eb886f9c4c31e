"""Two text files of aligned lines: line n of one is the prompt, line n of the other its answer.

It registers no source; `data.train` names the two files.
"""

from __future__ import annotations

from collections.abc import Iterator

from etude.core.errors import DataError
from etude.tuning.data.sources.data_file import DataFile
from etude.tuning.data.sources.registry import Row, SourceRow, UnreadableRow


def paired_rows(prompts: DataFile, completions: DataFile) -> Iterator[SourceRow]:
    """Yield {prompt, completion} of each pair of lines; a row is named by the line of the prompt.

    Raises:
        DataError: the files have different numbers of lines, so that no pair is certain.
    """
    counts = [_lines(prompts), _lines(completions)]
    if counts[0] != counts[1]:
        raise DataError(
            f"{prompts} has {counts[0]:,} lines and {completions} {counts[1]:,}; each line of one "
            "must have its answer in the same line of the other"
        )
    with prompts.open_text(newline="\n") as asked, completions.open_text(newline="\n") as answered:
        for number, (prompt, completion) in enumerate(zip(asked, answered, strict=True), start=1):
            origin = f"{prompts.name}:{number}"
            complaint = prompts.undecoded(prompt, number)
            complaint = complaint or completions.undecoded(completion, number)
            if complaint is not None:
                yield UnreadableRow(origin, complaint)
                continue
            texts = {"prompt": prompt.rstrip("\r\n"), "completion": completion.rstrip("\r\n")}
            yield Row(origin, texts)


def _lines(file: DataFile) -> int:
    with file.open_text(newline="\n") as lines:
        return sum(1 for _ in lines)
