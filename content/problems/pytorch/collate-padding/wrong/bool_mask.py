# expect: wrong answer: dtype
import torch


def collate(samples, pad, multiple=1):
    if not samples:
        raise ValueError("no samples")
    width = -(-max(len(s) for s in samples) // multiple) * multiple
    lengths = torch.tensor([len(s) for s in samples])
    mask = torch.arange(width)[None] < lengths[:, None]
    ids = torch.full((len(samples), width), pad)
    ids[mask] = torch.cat(samples).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(~mask, -100)}
