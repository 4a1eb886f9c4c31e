"""Strategy: a class whose name is a page of HTML.

Surface: result channel
Expect: wrong answer: type
"""

Mark = type("<script>alert(1)</script>" * 1000, (), {})


def create_dataset(features, labels):
    return Mark()
