# expect: wrong answer: values
# Pads at the left, as is done for generation, not for training.
import torch


def collate(samples, pad, multiple=1):
    if not samples:
        raise ValueError("no samples")
    width = -(-max(len(s) for s in samples) // multiple) * multiple
    ids = torch.full((len(samples), width), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, sample in enumerate(samples):
        start = width - len(sample)
        ids[row, start:] = labels[row, start:] = sample.long()
        mask[row, start:] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
