"""Video files to frames with times, frames at a constant rate, and clips as they are stored in shards."""
