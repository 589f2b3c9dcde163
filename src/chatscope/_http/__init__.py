"""How a request reaches a wire: the default transport, or what the user handed in."""
