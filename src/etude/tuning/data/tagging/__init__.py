"""Tagged words: schemes of tags, rows of words and tags, words of a text, and decoding."""
