import torch

IGNORED = -100


def collate(samples: list[torch.Tensor], pad: int, multiple: int = 1) -> dict[str, torch.Tensor]:
    """Return `input_ids`, `attention_mask` and `labels` of one padded batch."""
    if not samples:
        raise ValueError("a batch needs at least one sample")
    lengths = torch.tensor([len(sample) for sample in samples])
    # -(-a // b) rounds up.
    width = -(-int(lengths.max()) // multiple) * multiple
    real = torch.arange(width) < lengths[:, None]
    ids = torch.full((len(samples), width), pad, dtype=torch.int64)
    # A boolean index reads row by row, which is the order of the joined samples.
    ids[real] = torch.cat(samples).to(torch.int64)
    return {
        "input_ids": ids,
        "attention_mask": real.to(torch.int64),
        "labels": ids.masked_fill(~real, IGNORED),
    }
