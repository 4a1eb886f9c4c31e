"""Recipe sections: the typed, validated settings of each part of a run.

Every key is documented by the docstring under it, which `etude recipe keys` and
docs/reference/recipe.md print.
"""
