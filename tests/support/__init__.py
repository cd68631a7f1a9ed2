"""What several tests and the benchmarks share: models with realistic weights, real data."""
