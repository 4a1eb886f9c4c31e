import math

import torch

NEGLIGIBLE = 1e-8


def homography(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the 3 × 3 matrix that takes `source` points to `target` points."""
    if len(source) != len(target) or len(source) < 4:
        raise ValueError(f"{len(source)} and {len(target)} points: four pairs or more are needed")
    before, after = _normalizer(source), _normalizer(target)
    points, images = _homogeneous(source) @ before.T, _homogeneous(target) @ after.T

    none = torch.zeros_like(points)
    across = torch.cat([points, none, -images[:, :1] * points], dim=1)
    down = torch.cat([none, points, -images[:, 1:2] * points], dim=1)
    # The full basis: of an 8 × 9 matrix the ninth vector is the one that is sought.
    _, sigma, basis = torch.linalg.svd(torch.cat([across, down]), full_matrices=True)
    fitted = basis[-1].reshape(3, 3)
    if sigma[7] <= NEGLIGIBLE * sigma[0] or torch.linalg.det(fitted).abs() <= NEGLIGIBLE:
        raise ValueError("the points determine no invertible map: are three of them on a line?")

    matrix = torch.linalg.solve(after, fitted @ before)
    matrix = matrix / torch.linalg.norm(matrix)
    return matrix * torch.linalg.det(matrix).sign()


def _homogeneous(points: torch.Tensor) -> torch.Tensor:
    points = points.double()
    return torch.cat([points, torch.ones_like(points[:, :1])], dim=1)


def _normalizer(points: torch.Tensor) -> torch.Tensor:
    """Return the matrix that moves points to the origin, to a mean distance of √2."""
    points = points.double()
    mean = points.mean(0)
    radius = (points - mean).norm(dim=1).mean()
    if radius <= NEGLIGIBLE * mean.norm() or radius == 0:
        raise ValueError("all points are equal")
    scale = math.sqrt(2) / radius
    return torch.stack(
        [
            torch.stack([scale, scale.new_zeros(()), -scale * mean[0]]),
            torch.stack([scale.new_zeros(()), scale, -scale * mean[1]]),
            scale.new_tensor([0.0, 0.0, 1.0]),
        ]
    )
