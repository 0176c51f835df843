"""Jets of events: FastJet in, one record an event out. The only stage that imports fastjet."""
