"""Speed, memory and faithfulness, with their bounds: `python -m benchmarks [NAME ...]` writes results/NAME.json.

Speed is given as ratios within one run, of the same events. The exit code says whether every bound holds.
"""
