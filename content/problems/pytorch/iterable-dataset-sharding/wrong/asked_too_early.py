# expect: wrong answer: values | wrong answer: shape
# The constructor runs before there are workers.
import itertools

from torch.utils.data import IterableDataset, get_worker_info


class ShardedStream(IterableDataset):
    def __init__(self, source, rank, world, even=False):
        if not 0 <= rank < world:
            raise ValueError("rank")
        self.source, self.rank, self.world, self.even = source, rank, world, even
        self.info = get_worker_info()

    def __iter__(self):
        info = self.info
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        mine = None
        for index, element in enumerate(self.source):
            turn, place = divmod(index, self.world)
            if turn % workers != worker:
                continue
            if place == self.rank:
                mine = element
            if place == (self.world - 1 if self.even else self.rank):
                yield mine
