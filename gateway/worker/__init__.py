"""The child's program: decode, validate, batch, predict, encode. Standard library at import."""
