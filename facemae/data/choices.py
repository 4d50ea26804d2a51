"""What commands that read folders of files let one choose."""

from enum import StrEnum


class Files(StrEnum):
    """What is taken of folders that hold images and videos."""

    AUTO = "auto"
    IMAGES = "images"
    VIDEOS = "videos"


class People(StrEnum):
    """Whose faces are taken of videos."""

    MAIN = "main"
    ALL = "all"
