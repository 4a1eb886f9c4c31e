"""The sections of a recipe: what each part of a run is given, as typed and checked data.

Every key has its meaning written under it; `etude recipe keys` and docs/reference/recipe.md print
the same words.
"""
