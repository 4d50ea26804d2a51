"""Self-supervised pretraining of facial representations that people can run, trust and build on.

The public API is the names below. They are imported when first used, so `import facemae` and `facemae --help` stay
light.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facemae.config import Recipe
    from facemae.errors import FacemaeError
    from facemae.features.export import export_encoder
    from facemae.features.extractor import FeatureExtractor, load
    from facemae.recipe import list_recipes, load_recipe
    from facemae.train.trainer import RunResult, pretrain

_HOMES = {
    "FacemaeError": "facemae.errors",
    "FeatureExtractor": "facemae.features.extractor",
    "Recipe": "facemae.config",
    "RunResult": "facemae.train.trainer",
    "export_encoder": "facemae.features.export",
    "list_recipes": "facemae.recipe",
    "load": "facemae.features.extractor",
    "load_recipe": "facemae.recipe",
    "pretrain": "facemae.train.trainer",
}

__all__ = [
    "FacemaeError",
    "FeatureExtractor",
    "Recipe",
    "RunResult",
    "export_encoder",
    "list_recipes",
    "load",
    "load_recipe",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'facemae' has no attribute {name!r}; the public names are {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
