"""Ways of telling training and test samples apart, and of choosing settings without looking at test labels."""
