"""The run folder: checkpoints, who may write there, and how a run stops and goes on."""
