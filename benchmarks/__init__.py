"""Speed, as ratios within one run: `python -m benchmarks` writes results/NAME.json and exits 1 below a bound."""
