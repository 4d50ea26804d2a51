"""Names that data sets give their splits, and the three this library uses."""

_SPLITS = {
    "train": ("train", "training", "trn", "tr"),
    "valid": ("valid", "validation", "val", "dev", "devel", "development", "publictest"),
    "test": ("test", "testing", "tst", "te", "eval", "evaluation", "privatetest"),
}
_CANONICAL = {alias: name for name, aliases in _SPLITS.items() for alias in aliases}


def canonical_split(name: str) -> str | None:
    """The split of this name among `train`, `valid` and `test`; None for a name that is not known.

    Case, blanks, hyphens and underscores do not count. `PublicTest` and `PrivateTest` are FER2013's.
    """
    plain = name.lower().replace("_", "").replace("-", "").replace(" ", "")
    return _CANONICAL.get(plain)


def known_split_names() -> str:
    """The accepted names in one line, for messages."""
    return "; ".join(f"{name}: {', '.join(aliases)}" for name, aliases in _SPLITS.items())
