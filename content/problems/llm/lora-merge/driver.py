import torch


def drive(submission, weight, a, b, alpha, rank_stabilized, unmerge, in_place):
    own = weight.clone()
    address = own.data_ptr()
    refused, result = False, None
    try:
        result = submission.merge_lora(own, a, b, alpha, rank_stabilized, unmerge, in_place)
    except ValueError:
        if not in_place:
            raise
        refused = True
    is_tensor = isinstance(result, torch.Tensor)
    return {
        "refused": refused,
        "result": result,
        "the weight afterwards": own,
        "returns the weight itself": result is own,
        "the weight keeps its memory": own.data_ptr() == address,
        "shares the memory of the weight": is_tensor
        and result.untyped_storage().data_ptr() == own.untyped_storage().data_ptr(),
    }
