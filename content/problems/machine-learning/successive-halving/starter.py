from collections.abc import Callable


def successive_halving(
    loss: Callable[[int, int], float], count: int, smallest: int, largest: int, eta: int
) -> dict:
    """Return the best candidate, its loss, the rounds and the budget spent."""
    raise NotImplementedError
