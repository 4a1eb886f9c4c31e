import torch


def drive(submission, config, rank, targets, seed=0, gaussian=False):
    count, factors = submission.init_lora(config, rank, targets, seed, gaussian)
    return {
        "parameters": count,
        "factors": factors,
        "global random numbers afterwards": torch.rand(3),
    }
