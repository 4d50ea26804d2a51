"""Whether two images show the same person, as LFW asks it."""

from facemae_probes.verification.pairs import Pairs, read_pairs
from facemae_probes.verification.verify import verify

__all__ = ["Pairs", "read_pairs", "verify"]
