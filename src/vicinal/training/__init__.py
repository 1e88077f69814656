"""How a network is trained. The LightningModule is in `vicinal.training.module`, imported when training starts."""

from vicinal.training.averaging import AveragingSettings
from vicinal.training.config import PrecisionName, Training
from vicinal.training.teacher import Teacher, TeacherSettings

__all__ = ["AveragingSettings", "PrecisionName", "Teacher", "TeacherSettings", "Training"]
