"""Bytes to values and back, sans I/O: no await, no httpx, no clock in here."""
