"""Weights of other frameworks, as models of the zoo and as pretrained folders."""

from zoo.importers.folder import import_pretrained
from zoo.importers.foreign import KINDS, ForeignModel, Imported, import_weights, read_state

__all__ = ["KINDS", "ForeignModel", "Imported", "import_pretrained", "import_weights", "read_state"]
