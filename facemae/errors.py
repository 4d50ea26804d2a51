"""The one exception tree of facemae.

Every message says what was found, what was expected, and what to do about it, so that an error can be acted on without
reading the source. Anything that is not a `FacemaeError` reaching the command line is a bug and shows its traceback.
"""


class FacemaeError(Exception):
    """Base of every error that facemae raises on purpose.

    Args:
        found: What was found, with the offending name, path or number.
        expected: What would have been right.
        fix: What to do, preferably a command.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str | None = None, fix: str | None = None) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  to do:    {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # The default rebuilds from `args` alone and would lose the keywords when a worker process raises.
        return (_rebuild, (type(self), self.found, self.expected, self.fix))


def _rebuild(kind: type[FacemaeError], found: str, expected: str | None, fix: str | None) -> FacemaeError:
    return kind(found, expected=expected, fix=fix)


class UsageError(FacemaeError):
    """The command or call was given arguments that contradict each other or name nothing."""

    exit_code = 2


class ConfigError(UsageError):
    """A recipe cannot be read, has an unknown key, or contradicts itself."""


class DataError(FacemaeError):
    """Something is wrong with source data or a shard set."""


class ShardError(DataError):
    """A shard cannot be read as a tar archive: truncated, compressed, or not a tar at all."""


class IndexMismatchError(DataError):
    """The index does not describe the shards beside it, or is not the one a run was started with."""


class DecodeError(DataError):
    """Bytes that are as they were written do not decode: no picture, clip or sound, or a damaged one."""


class DamageLimitError(DataError):
    """More samples had to be replaced than the recipe allows."""


class StorageError(FacemaeError):
    """Reading or writing failed underneath: disk full, permission denied, device error."""


class CheckpointError(FacemaeError):
    """A checkpoint is damaged, belongs to another model, or none is valid."""


class ResumeError(FacemaeError):
    """A run folder cannot be continued with what was asked for."""


class LeaseError(ResumeError):
    """Another job holds the run folder."""


class NonFiniteError(FacemaeError):
    """Loss or gradients stayed non-finite for longer than the recipe tolerates."""


class SpikeError(FacemaeError):
    """Gradients stood out more often than the recipe tolerates."""


class ProcessError(FacemaeError):
    """The processes of a run do not find each other, or one of them is gone."""


class ProbeError(FacemaeError):
    """A probe cannot be run on the given labels, splits or features."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed; the message names the extra that brings it."""
