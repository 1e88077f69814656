"""How a trained model leaves: as a file for other programs, or as a folder for the hub, and how it is loaded again."""

from vicinal.exporting.loading import load
from vicinal.exporting.writing import FORMATS, Exported, FormatName, export

__all__ = ["FORMATS", "Exported", "FormatName", "export", "load"]
