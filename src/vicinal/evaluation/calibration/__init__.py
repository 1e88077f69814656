"""Calibration: whether a prediction of 80 % is right in 80 % of cases. Running sums, one batch at a time.

Every state here is a tensor of sums whose size does not depend on the number of examples; states add up over batches,
over objects (``merge``) and over processes (``reduced``). A calibration error depends on its bins: only figures with
the same bins compare.
"""

from vicinal.evaluation.calibration.adaptive import CELLS, AdaptiveCalibration
from vicinal.evaluation.calibration.classwise import ClasswiseCalibration
from vicinal.evaluation.calibration.study import CalibrationFigures, CalibrationStudy, calibration_figures
from vicinal.evaluation.calibration.top_label import BINS, Calibration, ReliabilityBin, bin_sums

__all__ = [
    "BINS",
    "CELLS",
    "AdaptiveCalibration",
    "Calibration",
    "CalibrationFigures",
    "CalibrationStudy",
    "ClasswiseCalibration",
    "ReliabilityBin",
    "bin_sums",
    "calibration_figures",
]
