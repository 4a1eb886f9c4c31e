# expect: wrong answer: values
# Labels keep the padding id, so the loss teaches the model to write padding.
import torch


def collate(samples, pad, multiple=1):
    if not samples:
        raise ValueError("no samples")
    width = -(-max(len(s) for s in samples) // multiple) * multiple
    ids = torch.full((len(samples), width), pad)
    mask = torch.zeros_like(ids)
    for row, sample in enumerate(samples):
        ids[row, : len(sample)] = sample
        mask[row, : len(sample)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.clone()}
