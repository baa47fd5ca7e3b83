"""A module that two models bring under the same name; this one triples."""

FACTOR = 3.0


def score(values):
    return [FACTOR * value for value in values]
