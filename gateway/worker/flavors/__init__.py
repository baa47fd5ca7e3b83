"""How an artifact becomes something that predicts. Heavy imports happen inside the functions."""


class NotTakenError(Exception):
    """A bare model is not given these inputs: on them it may answer unlike its pyfunc."""
