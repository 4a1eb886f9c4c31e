def merge_step(
    words: dict[tuple[str, ...], int],
) -> tuple[tuple[str, str] | None, dict[tuple[str, ...], int]]:
    """Return the most frequent pair of neighbours, and the words in which it is merged."""
    raise NotImplementedError
