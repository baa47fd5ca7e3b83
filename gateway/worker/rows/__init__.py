"""Rows of requests and answers: JSON, validated by the signature, to arrays, and back to JSON."""
