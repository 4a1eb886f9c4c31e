# expect: wrong answer: values
# Reads one element ahead of what is needed.
import itertools

from torch.utils.data import IterableDataset, get_worker_info


class ShardedStream(IterableDataset):
    def __init__(self, source, rank, world, even=False):
        if not 0 <= rank < world:
            raise ValueError("rank")
        self.source, self.rank, self.world, self.even = source, rank, world, even

    def __iter__(self):
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        waiting = []
        kept = None
        for index, element in enumerate(self.source):
            yield from waiting
            waiting = []
            turn, place = divmod(index, self.world)
            if turn % workers != worker:
                continue
            if place == self.rank:
                kept = element
            if place == (self.world - 1 if self.even else self.rank):
                waiting = [kept]
        yield from waiting
