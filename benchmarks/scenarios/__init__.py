"""The scenarios: the costs that are measured, and long runs that check everything that one adapter does."""
