"""Small sabotages of the spines, each of which a test ought to notice."""
