"""Speed, as ratios within one run. `make bench` runs all; each also runs alone: `python -m benchmarks.bench_lock`."""
