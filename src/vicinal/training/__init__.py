"""How a network is trained. `vicinal.training.module` holds the LightningModule; it is imported when training starts."""

from vicinal.training.config import PrecisionName, Training
from vicinal.training.teacher import Teacher, TeacherSettings

__all__ = ["PrecisionName", "Teacher", "TeacherSettings", "Training"]
