"""The machinery of a run: processes, cores, loops, the server, samples, tables, targets. Not here: `scenarios`."""
