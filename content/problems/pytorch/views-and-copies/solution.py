import torch


def own(source: torch.Tensor, result: torch.Tensor) -> tuple[bool, torch.Tensor]:
    """Return whether `result` shares memory with `source`, and a tensor of one's own."""
    # The storage begins at one address, wherever in it the two tensors begin. Empty storages all
    # have the address 0, and share nothing.
    address = result.untyped_storage().data_ptr()
    shared = address != 0 and address == source.untyped_storage().data_ptr()
    if not shared and result.is_contiguous():
        return shared, result
    # A plain clone() would keep the order in memory of a transposed tensor.
    return shared, result.clone(memory_format=torch.contiguous_format)
