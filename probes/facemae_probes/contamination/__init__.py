"""Whether images of a probing set were pretrained on."""

from facemae_probes.contamination.check import contamination
from facemae_probes.contamination.parts import Part
from facemae_probes.contamination.pinned import initial_warnings, streams_of
from facemae_probes.contamination.result import LIMITS, Contamination

__all__ = ["LIMITS", "Contamination", "Part", "contamination", "initial_warnings", "streams_of"]
