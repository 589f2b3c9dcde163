"""What is run: the costs that are measured, and the longer runs that hold one adapter to its account."""
