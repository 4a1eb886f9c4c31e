# expect: wrong answer: shape
# Right gradients, but all activations are kept.
def recompute(function, *inputs):
    return function(*inputs)
