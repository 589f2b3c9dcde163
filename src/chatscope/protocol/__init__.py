"""Converts bytes to values and back, sans I/O: without await, httpx or a clock."""
