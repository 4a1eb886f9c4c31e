# expect: wrong answer: values
# The right size, with the numbers of several patches mixed.
def patch_embedding(images, weight, bias):
    n, c, height, width = images.shape
    d, side = weight.shape[0], weight.shape[-1]
    if height % side or width % side:
        raise ValueError("sizes")
    h, w = height // side, width // side
    patches = images.reshape(n, h * w, c * side * side)
    return patches @ weight.flatten(1).T + bias
