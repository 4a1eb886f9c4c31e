# expect: wrong answer: values
# Looks for the largest entry instead of the one of the largest magnitude.
import torch


def pca(features, count):
    n, f = features.shape
    if not 1 <= count <= min(n - 1, f) or (features == features[0]).all():
        raise ValueError("count")
    x = features - features.mean(0)
    _, s, v = torch.linalg.svd(x, full_matrices=False)
    components = v[:count] * v[:count].amax(dim=1, keepdim=True).sign()
    return components, s[:count] ** 2 / (s**2).sum(), x @ components.T
