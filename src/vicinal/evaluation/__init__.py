"""What a trained network is worth: figures on any module that maps data space to logits."""

from vicinal.evaluation.figures import Figures, figures, probabilities

__all__ = ["Figures", "figures", "probabilities"]
