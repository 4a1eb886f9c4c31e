"""Practise: problems, the judge that answers them, and the record of what was learnt."""
