"""Scripts with the same two workloads, one for each library, run by path in an environment of its own."""
