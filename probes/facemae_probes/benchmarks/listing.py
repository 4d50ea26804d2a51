"""What reading an owner's folder gives: rows of images and labels, and everything that is wrong with them."""

import csv
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from facemae.data.ingest.folder import inside
from facemae.data.splits import canonical_split
from facemae.errors import DataError
from facemae.files import storage_errors

EXAMPLES = 5
"""Examples that a message shows."""


@dataclass(frozen=True)
class Row:
    """One listed image.

    Attributes:
        path: Relative to the root of the layout; where pixels lie in a table, a name made of the row.
        split: train, valid or test.
        labels: Columns of the packed set; those unknown for this image are left out.
        subject: The person shown, where the owner says.
        box: Left, top, width and height of the face in pixels, where the image shows more.
        image: Reads the encoded image, where it is no file.
        source: What the image was taken from, such as the video of a frame, where the owner says.
    """

    path: str
    split: str
    labels: dict[str, Any]
    subject: str | None = None
    box: tuple[int, int, int, int] | None = None
    image: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)
    source: str | None = None

    @property
    def stem(self) -> str:
        """The owner's name of the image, without folder and ending."""
        return PurePosixPath(self.path).stem


@dataclass
class Problem:
    """One kind of thing that is wrong, with how often and the first examples."""

    kind: str
    text: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def line(self) -> str:
        """The problem for a person."""
        more = f", and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        return f"{self.text}: {', '.join(self.examples)}{more}" if self.examples else self.text


class Listing:
    """Collects rows; what does not fit becomes a problem instead of an error, so that a doctor can name all of it.

    Args:
        codes: The owner's codes to class names; None as a name means an image outside the benchmark. Without codes,
            every text is a class.
        label: Column of the class.
        folders: Folders that hold the listed images, relative to the root; others in them are reported.
    """

    def __init__(
        self,
        codes: Mapping[str, str | None] | None = None,
        *,
        label: str = "expression",
        folders: tuple[str, ...] = (),
    ) -> None:
        self.codes = codes
        self.label = label
        self.folders = folders
        self.rows: list[Row] = []
        self.left_out: dict[str, int] = {}
        self.notes: list[str] = []
        self.ignored: set[str] = set()
        self._problems: dict[tuple[str, str], Problem] = {}
        self._paths: set[str] = set()

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, in the order of appearance."""
        return list(self._problems.values())

    def add(
        self,
        path: str,
        split: str,
        code: str | None,
        *,
        labels: Mapping[str, Any] | None = None,
        subject: str | None = None,
        box: tuple[int, int, int, int] | None = None,
        image: Callable[[], bytes] | None = None,
        source: str | None = None,
    ) -> None:
        """Add an image.

        Args:
            path: See `Row`.
            split: The owner's name of the split.
            code: The owner's code of the class; None for an image that has only other labels.
            labels: Further columns.
            subject: See `Row`.
            box: See `Row`.
            image: See `Row`.
            source: See `Row`.
        """
        known = canonical_split(split)
        if image is None and not inside(path):
            self.problem("outside path", "images are listed that are not inside the named folder", path)
        elif known is None:
            self.problem("unknown split", f"split {split!r} is none of train, valid and test", path)
        elif path in self._paths:
            self.problem("listed twice", "images are listed more than once", path)
        elif code is not None and self.codes is not None and code not in self.codes:
            expected = ", ".join(self.codes)
            self.problem("unknown label", f"unknown label code {code!r} (known: {expected})", path)
        elif code is not None and self.codes is not None and self.codes[code] is None:
            self.leave_out(f"label {code} is no class of this benchmark", path)
        else:
            self._paths.add(path)
            name = None if code is None else code if self.codes is None else self.codes[code]
            own = {} if name is None else {self.label: name}
            self.rows.append(Row(path, known, {**own, **(labels or {})}, subject, box, image, source))

    def leave_out(self, reason: str, path: str) -> None:
        """Count an image that the owner lists and the benchmark does not use."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        self.ignored.add(path)

    def problem(self, kind: str, text: str, example: str | None = None) -> None:
        """Note something wrong; equal texts are counted together."""
        found = self._problems.setdefault((kind, text), Problem(kind, text))
        if example is not None:
            found.add(example)

    def counts(self) -> dict[str, dict[str, int]]:
        """Labelled samples by split and class."""
        return count_labels((row.split, row.labels.get(self.label)) for row in self.rows)

    def digest(self) -> str:
        """See `list_digest`."""
        return list_digest((row.stem, row.split, row.labels.get(self.label)) for row in self.rows)


def count_labels(pairs: Iterable[tuple[str, Any]]) -> dict[str, dict[str, int]]:
    """Samples by split and class, of (split, class) pairs; those without a class do not count."""
    counts: dict[str, dict[str, int]] = {}
    for split, name in pairs:
        if name is not None:
            per = counts.setdefault(split, {})
            per[str(name)] = per.get(str(name), 0) + 1
    return counts


def list_digest(rows: Iterable[tuple[str, str, Any]]) -> str:
    """SHA-256 of a list, whatever its order and format: sorted lines of name, split and class of the labelled images.

    Names are those of the image files without folder and ending.
    """
    lines = sorted(f"{stem}\t{split}\t{name}\n" for stem, split, name in rows if name is not None)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file that are not blank, with their numbers from 1."""
    with storage_errors(path, "reading"):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name} is not a readable text: {error}", expected="UTF-8 text") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file that are not empty, with their last lines' numbers; blanks around values do not count."""
    with storage_errors(path, "reading"), path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.reader(handle)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, [value.strip() for value in row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path.name} is not a readable CSV file: {error}", expected="UTF-8 text") from error


def table_rows(path: Path, columns: tuple[str, ...], *, headed: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file as the values of the given columns, with their line numbers.

    Args:
        path: The file.
        columns: Columns to take; the case of names does not count.
        headed: The first row names the columns. If not, it may, and else the columns are the first ones in their order.

    Raises:
        DataError: The file is empty, a column is missing, or a row is too short.
    """
    rows = csv_rows(path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path.name} is empty", expected=f"the columns {', '.join(columns)}")
    names = [name.lower() for name in first[1]]
    missing = [name for name in columns if name.lower() not in names]
    if headed and missing:
        raise DataError(f"{path.name} has no column {', '.join(missing)}", expected=f"columns {', '.join(columns)}")
    places = list(range(len(columns))) if missing else [names.index(name.lower()) for name in columns]
    for line, row in itertools.chain([first] if missing else [], rows):
        if len(row) <= max(places):
            found = f"line {line} of {path.name} has {len(row)} fields"
            raise DataError(found, expected=f"at least {max(places) + 1}")
        yield line, [row[place] for place in places]
