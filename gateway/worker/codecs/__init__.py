"""Wire formats, one per module: a body to validated inputs, predictions to an answer."""
