"""The studies of a report: what is measured of a trained network, each with its settings, as plain figures."""

from collections.abc import Mapping

from vicinal.studies.base import Study, Subject
from vicinal.studies.calibration import Reliability
from vicinal.studies.corruptions import CorruptionErrors
from vicinal.studies.fgm import SingleStep
from vicinal.studies.mistakes import Mistakes
from vicinal.studies.paths import Paths
from vicinal.studies.regions import Regions
from vicinal.studies.robustness import Robustness
from vicinal.studies.smoothness import Smoothness

STUDIES: Mapping[str, type[Study]] = {
    "robustness": Robustness,
    "fgm": SingleStep,
    "calibration": Reliability,
    "corruptions": CorruptionErrors,
    "paths": Paths,
    "regions": Regions,
    "smoothness": Smoothness,
    "mistakes": Mistakes,
}
"""All studies, by the name under which they are asked for."""

__all__ = [
    "STUDIES",
    "CorruptionErrors",
    "Mistakes",
    "Paths",
    "Regions",
    "Reliability",
    "Robustness",
    "SingleStep",
    "Smoothness",
    "Study",
    "Subject",
]
