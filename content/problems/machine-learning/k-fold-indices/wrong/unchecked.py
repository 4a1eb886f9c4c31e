# expect: wrong answer: no exception
# More folds than samples give folds that test nothing.
import torch


def k_fold(order, k):
    folds = order.tensor_split(k)
    return [(torch.cat(folds[:i] + folds[i + 1 :]), fold) for i, fold in enumerate(folds)]
