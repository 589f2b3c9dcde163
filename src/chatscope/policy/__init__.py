"""When to send, when to wait, when to give up."""
