import torch


def collate(samples: list[torch.Tensor], pad: int, multiple: int = 1) -> dict[str, torch.Tensor]:
    """Return `input_ids`, `attention_mask` and `labels` of one padded batch."""
    raise NotImplementedError
