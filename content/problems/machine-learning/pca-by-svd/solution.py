import torch


def pca(features: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the first `count` components, their ratios of variance, and the projections."""
    samples, width = features.shape
    if not 1 <= count <= min(samples - 1, width):
        raise ValueError(f"{count} components of {samples} samples with {width} features")
    if (features == features[0]).all():
        raise ValueError("all samples are equal: there is no variance")
    centred = features - features.mean(dim=0)
    # Of the data themselves: XᵀX would be F × F, and its rounding would cover small components.
    _, scales, directions = torch.linalg.svd(centred, full_matrices=False)
    components = directions[:count]
    largest = components.abs().argmax(dim=1, keepdim=True)
    components = components * components.gather(1, largest).sign()
    variances = scales.square()
    return components, variances[:count] / variances.sum(), centred @ components.T
