from torch.utils.flop_counter import FlopCounterMode


def drive(submission, x, weight, a, b, alpha):
    with FlopCounterMode(display=False) as counter:
        y = submission.lora_forward(x, weight, a, b, alpha)
    rows = x.numel() // x.shape[-1]
    needed = rows * (weight.numel() + a.numel() + b.numel())
    # The counter takes a multiplication and an addition for two.
    return {"y": y, "no more multiplications than needed": counter.get_total_flops() <= 2 * needed}
