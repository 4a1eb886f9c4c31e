# expect: wrong answer: values
# Takes every token that equals the padding id for padding.
import torch
from torch.nn.utils.rnn import pad_sequence


def collate(samples, pad, multiple=1):
    if not samples:
        raise ValueError("no samples")
    ids = pad_sequence([s.long() for s in samples], batch_first=True, padding_value=pad)
    ids = torch.nn.functional.pad(ids, (0, -ids.shape[1] % multiple), value=pad)
    mask = ids != pad
    return {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "labels": ids.masked_fill(~mask, -100),
    }
