"""How an artifact becomes something that predicts. Heavy imports happen inside the functions."""
