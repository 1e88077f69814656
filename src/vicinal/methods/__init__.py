"""One file per published method: its loss, written like its equations.

To add one: a file with a `Method`, one line below, one row in the table of ``tests/methods``.
"""

from vicinal.methods.adversarial_training import FGSMTraining, PGDTraining
from vicinal.methods.advmixup import AdvMixup
from vicinal.methods.base import Context, Cost, Method, Model, Needs, Origin, SpaceName, Step, Term
from vicinal.methods.ct_gan import CTGAN
from vicinal.methods.cvt import CVT, CVTVAT
from vicinal.methods.fast_swa import MeanTeacherFastSWA
from vicinal.methods.fixmatch import FixMatch
from vicinal.methods.ict import ICT
from vicinal.methods.mean_teacher import MeanTeacher
from vicinal.methods.mixup import Mixup
from vicinal.methods.supervised import Supervised
from vicinal.methods.vat import VAT, VATEntMin

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "mean_teacher_fast_swa": MeanTeacherFastSWA,
    "vat": VAT,
    "vat_entmin": VATEntMin,
    "cvt": CVT,
    "cvt_vat": CVTVAT,
    "ct_gan": CTGAN,
    "mixup": Mixup,
    "ict": ICT,
    "advmixup": AdvMixup,
    "fixmatch": FixMatch,
    "fgsm_training": FGSMTraining,
    "pgd_training": PGDTraining,
}

__all__ = [
    "CTGAN",
    "CVT",
    "CVTVAT",
    "ICT",
    "METHODS",
    "VAT",
    "AdvMixup",
    "Context",
    "Cost",
    "FGSMTraining",
    "FixMatch",
    "MeanTeacher",
    "MeanTeacherFastSWA",
    "Method",
    "Mixup",
    "Model",
    "Needs",
    "Origin",
    "PGDTraining",
    "SpaceName",
    "Step",
    "Supervised",
    "Term",
    "VATEntMin",
]
