import torch

IGNORED = -100


def assistant_labels(
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    start: int,
    assistant: int,
    end: int,
    last_only: bool = False,
) -> torch.Tensor:
    """Return the shifted labels of a padded batch of chats: (B, L), -100 where not trained."""
    if ((lengths < 0) | (lengths > tokens.shape[1])).any():
        raise ValueError(f"lengths must lie between 0 and {tokens.shape[1]}")
    labels = torch.full_like(tokens, IGNORED)
    for row, length in enumerate(lengths.tolist()):
        answers = _answers(tokens[row, :length].tolist(), start, assistant, end)
        for first, stop in answers[-1:] if last_only else answers:
            # The place before a token is the one that predicts it.
            labels[row, first - 1 : stop - 1] = tokens[row, first:stop]
    return labels


def _answers(row: list[int], start: int, assistant: int, end: int) -> list[tuple[int, int]]:
    """Return where the assistant's contents begin, and where their turns stop, `end` included."""
    answers: list[tuple[int, int]] = []
    for at, token in enumerate(row):
        if token == start and row[at + 1 : at + 2] == [assistant]:
            first = at + 2
            stop = row.index(end, first) + 1 if end in row[first:] else len(row)
            answers.append((first, stop))
    return answers
