"""What goes into a page."""
