"""One request to one completion or stream."""
