# expect: wrong answer: values
# Compares the addresses of the first elements.
import torch


def own(source, result):
    shared = result.numel() > 0 and source.data_ptr() == result.data_ptr()
    if not shared and result.is_contiguous():
        return shared, result
    return shared, result.clone(memory_format=torch.contiguous_format)
