"""A feature of one's own, judged as lhcq judges its models: python 03_own_feature.py EVENTS.h5."""

import sys

import awkward as ak
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

import lhcq

events = lhcq.cluster(sys.argv[1], "rnd").to_awkward()
events = events[ak.num(events.jets) == 2]  # the two leading jets
heavy_first = ak.argsort(events.jets.m, axis=1, ascending=False)
jets = events.jets[heavy_first]

features = {
    "m_jj / GeV": events.mjj,
    "heavier jet's mass / GeV": jets.m[:, 0],
    "lighter jet's mass / GeV": jets.m[:, 1],
    "mass asymmetry": (jets.m[:, 0] - jets.m[:, 1]) / (jets.m[:, 0] + jets.m[:, 1]),  # one's own
    "lighter jet's tau21": jets.tau2[:, 1] / jets.tau1[:, 1],  # null where a jet has too few particles
}
table = np.column_stack([ak.to_numpy(ak.fill_none(value, np.nan)) for value in features.values()])
labels = ak.to_numpy(events.label)

in_test = ak.to_numpy(events.row) % 3 == 0
trees = HistGradientBoostingClassifier(random_state=0).fit(table[~in_test], labels[~in_test])
found = lhcq.metrics(labels[in_test], trees.predict_proba(table[in_test])[:, 1])
print(f"AUC {found.auc:.3f} [{found.auc_low:.3f}, {found.auc_high:.3f}] on {found.n} events")
print(f"accuracy {found.accuracy:.3f} [{found.accuracy_low:.3f}, {found.accuracy_high:.3f}]")
