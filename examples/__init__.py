"""Examples, each a file that runs and that the tests run."""
