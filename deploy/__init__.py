"""What surrounds the product: image, compose file, demonstration. Not part of the distribution."""
