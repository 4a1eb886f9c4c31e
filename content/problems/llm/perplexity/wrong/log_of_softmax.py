# expect: wrong answer: not finite
import math


def perplexity(batches):
    total, count = 0.0, 0
    for logits, labels in batches:
        wide = (logits.float() if logits.itemsize < 4 else logits).flatten(0, 1)
        flat = labels.flatten()
        chosen = wide.softmax(-1)[flat != -100].gather(-1, flat[flat != -100][:, None])
        total -= chosen.log().sum().item()
        count += len(chosen)
    if count == 0:
        raise ValueError("nothing")
    return math.exp(total / count) if total / count < 709 else math.inf
