"""One module per wire format: a caller's body to validated inputs, predictions to an answer."""
