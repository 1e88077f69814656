"""What the theory of mixup says of runs, as a page, as tables, and in a few sentences, from plain data."""

from vicinal.reporting.theory.page import render, tables
from vicinal.reporting.theory.sentences import FAR, in_short
from vicinal.reporting.theory.tabled import assumptions_table, formulas_table, statements_table

__all__ = ["FAR", "assumptions_table", "formulas_table", "in_short", "render", "statements_table", "tables"]
