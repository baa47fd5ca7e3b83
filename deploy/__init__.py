"""Image, compose file and demonstration. Not part of the distribution."""
