"""Jets of events: particles in, one record an event out. Compiled loops; FastJet is what they are tested against."""
