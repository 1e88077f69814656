"""One file per published method: its loss, written like its equations.

To add one: a file with a `Method`, one line below, one row in the table of ``tests/methods``.
"""

from vicinal.methods.advmixup import AdvMixup
from vicinal.methods.base import Context, Cost, Method, Model, Needs, Origin, SpaceName, Step, Term
from vicinal.methods.ict import ICT
from vicinal.methods.mean_teacher import MeanTeacher
from vicinal.methods.mixup import Mixup
from vicinal.methods.supervised import Supervised
from vicinal.methods.vat import VAT, VATEntMin

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "mixup": Mixup,
    "mean_teacher": MeanTeacher,
    "vat": VAT,
    "vat_entmin": VATEntMin,
    "ict": ICT,
    "advmixup": AdvMixup,
}

__all__ = [
    "ICT",
    "METHODS",
    "VAT",
    "AdvMixup",
    "Context",
    "Cost",
    "MeanTeacher",
    "Method",
    "Mixup",
    "Model",
    "Needs",
    "Origin",
    "SpaceName",
    "Step",
    "Supervised",
    "Term",
    "VATEntMin",
]
