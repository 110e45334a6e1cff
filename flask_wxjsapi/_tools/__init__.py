"""For people: the command line and what it finds out."""
