# expect: wrong answer: values
# All empty storages have the address 0.
import torch


def own(source, result):
    shared = source.untyped_storage().data_ptr() == result.untyped_storage().data_ptr()
    if not shared and result.is_contiguous():
        return shared, result
    return shared, result.clone(memory_format=torch.contiguous_format)
