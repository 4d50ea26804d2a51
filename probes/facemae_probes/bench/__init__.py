"""`facemae bench probe`: the heads against scikit-learn, in one run."""
