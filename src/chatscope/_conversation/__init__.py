"""Python types and functions to and from what a model sees: tools, structured output, turns."""
