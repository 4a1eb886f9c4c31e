# expect: wrong answer: shape | runtime error
# The layout of a convolution: (N, D, L).
def patch_embedding(images, weight, bias):
    n, c, height, width = images.shape
    d, side = weight.shape[0], weight.shape[-1]
    if height % side or width % side:
        raise ValueError("sizes")
    h, w = height // side, width // side
    patches = (
        images.reshape(n, c, h, side, w, side)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(n, h * w, c * side * side)
    )
    return (patches @ weight.flatten(1).T + bias).transpose(1, 2)
