"""Many tasks under one root task group."""
