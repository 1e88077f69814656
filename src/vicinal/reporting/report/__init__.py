"""One self-contained HTML report of one or many runs, from plain data: what was measured, said and drawn."""

from vicinal.reporting.report.entries import Entry
from vicinal.reporting.report.overview import MAIN
from vicinal.reporting.report.page import render, tables

__all__ = ["MAIN", "Entry", "render", "tables"]
