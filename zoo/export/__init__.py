"""Trained models for programs without Python: ONNX files, compared with the models they were made from."""

from zoo.export.folder import export
from zoo.export.parity import TOLERANCE, ExportError

__all__ = ["TOLERANCE", "ExportError", "export"]
