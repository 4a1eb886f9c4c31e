import numpy as np


def epoch_order(count: int, seed: int, epoch: int, position: int = 0) -> list[int]:
    """Return the order of the samples in an epoch, from `position` on."""
    if not 0 <= position <= count:
        raise ValueError(f"position {position} of {count} samples")
    # A list of numbers is mixed to one seed in a way that keeps (7, 1) and (8, 0) apart, and the
    # generator is our own: nobody else's random numbers are touched.
    generator = np.random.default_rng([seed, epoch])
    return generator.permutation(count).tolist()[position:]
