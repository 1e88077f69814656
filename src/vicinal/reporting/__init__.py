"""How results are shown: tables and figures."""

from vicinal.reporting.tables import Table, mean_and_std, percent

__all__ = ["Table", "mean_and_std", "percent"]
