"""Decides when to send, how long to wait and when to give up, for all calls of one client."""
