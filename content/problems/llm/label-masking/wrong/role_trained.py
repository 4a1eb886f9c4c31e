# expect: wrong answer: values
# Trains the two tokens of the header, too.
import torch


def assistant_labels(tokens, lengths, start, assistant, end, last_only=False):
    if ((lengths < 0) | (lengths > tokens.shape[1])).any():
        raise ValueError("length")
    labels = torch.full_like(tokens, -100)
    for r, n in enumerate(lengths.tolist()):
        row, spans = tokens[r, :n].tolist(), []
        for at in range(n - 1):
            if row[at] == start and row[at + 1] == assistant:
                stop = next((i for i in range(at + 2, n) if row[i] == end), n - 1) + 1
                spans.append((at + 1, stop))
        for first, stop in spans[-1:] if last_only else spans:
            labels[r, first - 1 : stop - 1] = tokens[r, first:stop]
    return labels
