"""What is learnt from: sources of features, their cache, the shard sets they are of."""
