"""Benchmarks of the stream: speed, memory and quality of the shuffle beside other loaders."""
