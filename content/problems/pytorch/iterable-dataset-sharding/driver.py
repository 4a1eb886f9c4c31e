import copy
from itertools import islice
from types import SimpleNamespace

from torch.utils.data import IterableDataset
from torch.utils.data._utils import worker


class Source:
    """Elements over and over, or once; knows how many were read at most by one iterator."""

    def __init__(self, elements, endless):
        self.elements, self.endless, self.read = elements, endless, 0

    def __iter__(self):
        read = 0
        while True:
            for element in self.elements:
                read += 1
                self.read = max(self.read, read)
                if read > 10_000:
                    raise RuntimeError("the source has no end, and is read without one")
                yield element
            if not self.endless:
                return


def drive(submission, elements, ranks, world, workers, even, endless):
    """Return what each worker of each rank is given; no workers is a loader without processes."""
    return [share(submission, elements, rank, world, workers, even, endless) for rank in ranks]


def share(submission, elements, rank, world, workers, even, endless):
    source = Source(elements, endless)
    options = {"even": True} if even else {}
    stream = submission.ShardedStream(source, rank, world, **options)
    parts = []
    for number in range(max(1, workers)):
        info = SimpleNamespace(id=number, num_workers=workers, seed=number, dataset=stream)
        worker._worker_info = info if workers else None
        try:
            parts.append(look(copy.copy(stream), source, endless))
        finally:
            worker._worker_info = None
    return {"is an IterableDataset": isinstance(stream, IterableDataset), "workers": parts}


def look(stream, source, endless):
    source.read = 0
    taken, reads = [], []
    for element in islice(stream, 7 if endless else None):
        taken.append(element)
        reads.append(source.read)
    first, second = iter(stream), iter(stream)
    return {
        "elements": taken,
        "read when yielded": reads,
        # The second iterator runs one ahead of the first.
        "two at once": [*islice(second, 1), *islice(first, 2), *islice(second, 2)],
    }
