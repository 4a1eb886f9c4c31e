# expect: wrong answer: values | memory limit | time limit
# The eigenvectors of the covariance: too large, and not accurate enough.
import torch


def pca(features, count):
    n, f = features.shape
    if not 1 <= count <= min(n - 1, f) or (features == features[0]).all():
        raise ValueError("count")
    x = features - features.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x)
    values, components = values.flip(0), vectors.T.flip(0)[:count]
    largest = components.abs().argmax(dim=1, keepdim=True)
    components = components * components.gather(1, largest).sign()
    return components, values[:count] / values.sum(), x @ components.T
