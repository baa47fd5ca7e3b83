"""A request's rows: read from JSON, checked by the signature, made arrays, and back."""
