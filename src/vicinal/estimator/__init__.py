"""The scikit-learn face: arrays in, a classifier out, and defaults that are chosen from the data."""

from vicinal.estimator.classifier import VicinalClassifier
from vicinal.estimator.defaults import EXTENT, NEAREST, neighbour_distance, neighbourhood_radius
from vicinal.estimator.scoring import labelled_scorer

__all__ = ["EXTENT", "NEAREST", "VicinalClassifier", "labelled_scorer", "neighbour_distance", "neighbourhood_radius"]
