"""When to send, how long to wait, when to give up: for all calls of one client."""
