# expect: wrong answer: values
# Splits into rows that are far apart.
def patch_embedding(images, weight, bias):
    n, c, height, width = images.shape
    d, side = weight.shape[0], weight.shape[-1]
    if height % side or width % side:
        raise ValueError("sizes")
    h, w = height // side, width // side
    patches = (
        images.reshape(n, c, side, h, side, w)
        .permute(0, 3, 5, 1, 2, 4)
        .reshape(n, h * w, c * side * side)
    )
    return patches @ weight.flatten(1).T + bias
