"""How a run is made: processes, cores, loops, the server, samples, tables, targets. What is measured: `scenarios`."""
