# expect: wrong answer: values
# A map between normalised points.
import math

import torch


def normalizer(points):
    points = points.double()
    mean = points.mean(0)
    radius = (points - mean).norm(dim=1).mean()
    if radius <= 1e-8 * mean.norm():
        raise ValueError("all equal")
    s = math.sqrt(2) / float(radius)
    return torch.tensor(
        [[s, 0, -s * mean[0]], [0, s, -s * mean[1]], [0, 0, 1]], dtype=torch.float64
    )


def lift(points):
    points = points.double()
    return torch.cat([points, torch.ones_like(points[:, :1])], 1)


def homography(source, target):
    if len(source) != len(target) or len(source) < 4:
        raise ValueError("four pairs")
    S, T = normalizer(source), normalizer(target)
    p, q = lift(source) @ S.T, lift(target) @ T.T
    o = torch.zeros_like(p)
    A = torch.cat([torch.cat([p, o, -q[:, :1] * p], 1), torch.cat([o, p, -q[:, 1:2] * p], 1)])
    _, sigma, basis = torch.linalg.svd(A, full_matrices=True)
    fitted = basis[-1].reshape(3, 3)
    if sigma[7] <= 1e-8 * sigma[0] or torch.linalg.det(fitted).abs() <= 1e-8:
        raise ValueError("degenerate")
    H = fitted
    H = H / H.norm()
    return H * torch.linalg.det(H).sign()
