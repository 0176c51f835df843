"""From events to an AUC, in this process and without a queue: python 01_events_to_auc.py EVENTS.h5 [MODEL]."""

import sys

import lhcq

file, model = sys.argv[1], (sys.argv[2:] or ["smollm2"])[0]

events = lhcq.cluster(file, "rnd")  # jets and their substructure; GeV
split = lhcq.prepare(events, "balanced", ratio="1:1", limit=300, model=model)  # four subsets, no event in two
run = lhcq.train(split, "first", model=model, max_steps=20, checkpoints=2)  # QLoRA, each checkpoint validated

test = run.test  # the best checkpoint, on events that nothing else touched
print(f"AUC {test.auc:.3f}, accuracy {test.accuracy:.3f} [{test.accuracy_low:.3f}, {test.accuracy_high:.3f}]")
print("P(signal) of the first events:", run.predict(events.to_awkward()[:5]).p_signal.round(3))
print("the page to look at:", run.report)
