"""What tests and benchmarks/reliability run the program on: lives of it, small streams, fakes, bad networks and clients."""
