"""lhcq: LHC Olympics collision events in, a language model that tells signal from background out."""

__version__ = "0.1.0"
