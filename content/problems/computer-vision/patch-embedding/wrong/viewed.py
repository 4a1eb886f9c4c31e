# expect: runtime error
# view cannot join what permute has taken apart.
def patch_embedding(images, weight, bias):
    n, c, height, width = images.shape
    d, side = weight.shape[0], weight.shape[-1]
    if height % side or width % side:
        raise ValueError("sizes")
    h, w = height // side, width // side
    patches = (
        images.reshape(n, c, h, side, w, side)
        .permute(0, 2, 4, 1, 3, 5)
        .view(n, h * w, c * side * side)
    )
    return patches @ weight.flatten(1).T + bias
