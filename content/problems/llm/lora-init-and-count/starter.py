import torch


def init_lora(
    config: dict[str, int],
    rank: int,
    targets: list[str],
    seed: int = 0,
    gaussian: bool = False,
) -> tuple[int, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Return the trainable parameters of all layers, and the factors (A, B) of one."""
    raise NotImplementedError
