# expect: wrong answer: values | wrong answer: shape
# Each worker yields all that its rank has.
import itertools

from torch.utils.data import IterableDataset, get_worker_info


class ShardedStream(IterableDataset):
    def __init__(self, source, rank, world, even=False):
        if not 0 <= rank < world:
            raise ValueError("rank")
        self.source, self.rank, self.world, self.even = source, rank, world, even

    def __iter__(self):
        worker, workers = 0, 1
        mine = None
        for index, element in enumerate(self.source):
            turn, place = divmod(index, self.world)
            if turn % workers != worker:
                continue
            if place == self.rank:
                mine = element
            if place == (self.world - 1 if self.even else self.rank):
                yield mine
