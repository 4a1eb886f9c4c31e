# expect: wrong answer: values
# Takes equal numbers for shared memory.
import torch


def own(source, result):
    shared = source.shape == result.shape and torch.equal(source, result)
    if not shared and result.is_contiguous():
        return shared, result
    return shared, result.clone(memory_format=torch.contiguous_format)
