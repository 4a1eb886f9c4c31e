# expect: wrong answer: shape
# Adds a whole multiple where the width is one already.
import torch


def collate(samples, pad, multiple=1):
    if not samples:
        raise ValueError("no samples")
    width = (max(len(s) for s in samples) // multiple + 1) * multiple
    ids = torch.full((len(samples), width), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, sample in enumerate(samples):
        ids[row, : len(sample)] = labels[row, : len(sample)] = sample.long()
        mask[row, : len(sample)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
