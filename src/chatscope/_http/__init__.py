"""How a request is sent: through the default transport, or through the user's own client or transport."""
