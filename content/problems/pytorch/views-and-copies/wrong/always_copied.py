# expect: wrong answer: values
# Safe, but copies what is fine already.
import torch


def own(source, result):
    address = result.untyped_storage().data_ptr()
    shared = address != 0 and address == source.untyped_storage().data_ptr()
    return shared, result.clone(memory_format=torch.contiguous_format)
