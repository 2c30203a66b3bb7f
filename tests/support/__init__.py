"""What the tests, the demo and the benchmark stand on. Nothing in here is imported by the operator."""
