"""The engine of the Python package `ropewalk`."""
