"""Fine-tuning as a probe: an encoder learns with a linear head on the training rows of a fold, as a run of facemae.

For each of `FinetunePlan.options()`, `finetune_fold` gives a run folder and `predict_rows` its scores for other rows.
"""

from facemae_probes.finetune.fold import finetune_fold, finetune_identity, predict_rows
from facemae_probes.finetune.plan import Augmentation, FinetuneOption, FinetunePlan

__all__ = [
    "Augmentation",
    "FinetuneOption",
    "FinetunePlan",
    "finetune_fold",
    "finetune_identity",
    "predict_rows",
]
