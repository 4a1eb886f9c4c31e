# expect: wrong answer: values
# Flattens a patch with channels last, which is not the order of the weight.
def patch_embedding(images, weight, bias):
    n, c, height, width = images.shape
    d, side = weight.shape[0], weight.shape[-1]
    if height % side or width % side:
        raise ValueError("sizes")
    h, w = height // side, width // side
    patches = (
        images.reshape(n, c, h, side, w, side)
        .permute(0, 2, 4, 3, 5, 1)
        .reshape(n, h * w, c * side * side)
    )
    return patches @ weight.flatten(1).T + bias
