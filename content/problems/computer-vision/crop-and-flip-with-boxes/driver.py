import torch


def drive(submission, image, *arguments):
    crop, boxes, indices = submission.crop_and_flip(image, *arguments)
    result = crop.clone() if isinstance(crop, torch.Tensor) else crop
    # Shows as a change of the image where the crop is only a view of it.
    if isinstance(crop, torch.Tensor):
        crop.fill_(77)
    return result, boxes, indices
