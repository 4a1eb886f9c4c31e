# expect: wrong answer: dtype
# Keeps the narrow type of the samples.
import torch


def collate(samples, pad, multiple=1):
    if not samples:
        raise ValueError("no samples")
    width = -(-max(len(s) for s in samples) // multiple) * multiple
    ids = torch.full((len(samples), width), pad, dtype=samples[0].dtype)
    mask = torch.zeros(len(samples), width, dtype=torch.int64)
    labels = torch.full((len(samples), width), -100)
    for row, sample in enumerate(samples):
        ids[row, : len(sample)] = labels[row, : len(sample)] = sample.long()
        mask[row, : len(sample)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
