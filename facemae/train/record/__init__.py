"""What a run writes about itself and shows to people."""
