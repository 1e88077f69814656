"""The studies of a report: what is measured of a trained network, each with its settings, as plain figures."""

from vicinal.studies.base import Study, Subject

__all__ = ["Study", "Subject"]
