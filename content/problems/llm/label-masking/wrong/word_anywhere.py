# expect: wrong answer: values
# Takes the word "assistant" for a role wherever it stands.
import torch


def assistant_labels(tokens, lengths, start, assistant, end, last_only=False):
    if ((lengths < 0) | (lengths > tokens.shape[1])).any():
        raise ValueError("length")
    labels = torch.full_like(tokens, -100)
    for r, n in enumerate(lengths.tolist()):
        row, spans, at = tokens[r, :n].tolist(), [], 0
        while at < n:
            if row[at] == assistant:
                stop = next((i for i in range(at + 1, n) if row[i] == end), n - 1) + 1
                spans.append((at + 1, stop))
                at = stop
            else:
                at += 1
        for first, stop in spans[-1:] if last_only else spans:
            labels[r, first - 1 : stop - 1] = tokens[r, first:stop]
    return labels
