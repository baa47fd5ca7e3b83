"""A module that two models bring under the same name; this one doubles."""

FACTOR = 2.0


def score(values):
    return [FACTOR * value for value in values]
