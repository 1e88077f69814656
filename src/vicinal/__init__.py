"""Robust, calibrated classifiers from few labels, by vicinal risk minimisation.

A training point is replaced by a neighbourhood of it (mixed with another point, moved adversarially, or averaged with a
teacher), and what that bought is measured: accuracy, robustness, calibration, smoothness.

The rooms, from the foundations up: `vicinal.data` (where examples come from), `vicinal.networks` (what is trained),
`vicinal.vicinity` (how a neighbour is made), `vicinal.methods` (one published loss a file), `vicinal.training`,
`vicinal.evaluation`, `vicinal.reporting`, and `vicinal.experiment` (the description of one run).
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
