import torch

OPERATIONS = {
    "x itself": lambda x: x,
    "x.T": lambda x: x.T,
    "x[:1]": lambda x: x[:1],
    "x[1:]": lambda x: x[1:],
    "x[:, 1]": lambda x: x[:, 1],
    "x[:, ::2]": lambda x: x[:, ::2],
    "x[[0, 1]]": lambda x: x[[0, 1]],
    "x[x > 0]": lambda x: x[x > 0],
    "x[0, 0]": lambda x: x[0, 0],
    "x.reshape(-1)": lambda x: x.reshape(-1),
    "x.T.reshape(-1)": lambda x: x.T.reshape(-1),
    "x.view(1, -1)": lambda x: x.view(1, -1),
    "x.flatten()": lambda x: x.flatten(),
    "x.clone()": lambda x: x.clone(),
    "x.T.clone()": lambda x: x.T.clone(),
    "x.detach()": lambda x: x.detach(),
    "x.unsqueeze(0)": lambda x: x.unsqueeze(0),
    "x.expand(2, *x.shape)": lambda x: x.expand(2, *x.shape),
    "x.contiguous()": lambda x: x.contiguous(),
    "x.T.contiguous()": lambda x: x.T.contiguous(),
    "x + 0": lambda x: x + 0,
    "x.to(x.dtype)": lambda x: x.to(x.dtype),
    "x.double()": lambda x: x.double(),
    "torch.cat([x, x])": lambda x: torch.cat([x, x]),
    "x.permute(2, 0, 1)": lambda x: x.permute(2, 0, 1),
    "torch.empty(0)": lambda x: torch.empty(0),
    "x.square().T": lambda x: x.square().T,
}


def drive(submission, x, operation, other):
    """Compute `operation` of x; `other` is an operation that gives the source, mostly x itself."""
    source, result = OPERATIONS[other](x), OPERATIONS[operation](x)
    shared, mine = submission.own(source, result)
    return {
        "shares memory": shared,
        "own tensor": mine,
        "own tensor is contiguous": mine.is_contiguous(),
        "own tensor shares memory with the source": mine.numel() > 0
        and mine.untyped_storage().data_ptr() == source.untyped_storage().data_ptr(),
        "own tensor is the result itself": mine is result,
    }
