# expect: wrong answer: values
# Divides each column by its standard deviation, which was not asked for.
import torch


def pca(features, count):
    n, f = features.shape
    if not 1 <= count <= min(n - 1, f) or (features == features[0]).all():
        raise ValueError("count")
    x = (features - features.mean(0)) / features.std(0)
    _, s, v = torch.linalg.svd(x, full_matrices=False)
    components = v[:count]
    largest = components.abs().argmax(dim=1, keepdim=True)
    components = components * components.gather(1, largest).sign()
    return components, s[:count] ** 2 / (s**2).sum(), x @ components.T
