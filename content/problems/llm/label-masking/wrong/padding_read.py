# expect: wrong answer: values
# Looks for turns beyond the length.
import torch


def assistant_labels(tokens, lengths, start, assistant, end, last_only=False):
    width = tokens.shape[1]
    if ((lengths < 0) | (lengths > width)).any():
        raise ValueError("length")
    labels = torch.full_like(tokens, -100)
    for r in range(len(tokens)):
        row, spans = tokens[r].tolist(), []
        for at in range(width - 1):
            if row[at] == start and row[at + 1] == assistant:
                stop = next((i for i in range(at + 2, width) if row[i] == end), width - 1) + 1
                spans.append((at + 2, stop))
        for first, stop in spans[-1:] if last_only else spans:
            labels[r, first - 1 : stop - 1] = tokens[r, first:stop]
    return labels
