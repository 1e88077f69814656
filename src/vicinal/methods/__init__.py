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
from vicinal.methods.local_mixup import LocalMixup
from vicinal.methods.manifold_mixup import ManifoldMixup
from vicinal.methods.mean_teacher import MeanTeacher
from vicinal.methods.mixmatch import MixMatch
from vicinal.methods.mixup import Mixup
from vicinal.methods.mixup_e import MixupE
from vicinal.methods.mixup_lr import MixupLR, MixupLRICT
from vicinal.methods.mmd_vae import MMDVAETraining
from vicinal.methods.on_manifold import OnManifoldTraining, VarMixupInputAdv, VarMixupLatentAdv
from vicinal.methods.pi_model import PiModel
from vicinal.methods.sntg import MeanTeacherSNTG, PiSNTG, TemporalEnsemblingSNTG, VATEntMinSNTG
from vicinal.methods.supervised import Supervised
from vicinal.methods.temporal_ensembling import TemporalEnsembling
from vicinal.methods.vadd import VAdD, VAdDVAT
from vicinal.methods.varmixup import MixupR, VarMixup
from vicinal.methods.varmixup_ict import VarMixupICT
from vicinal.methods.vat import VAT, VATEntMin

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "pi_model": PiModel,
    "temporal_ensembling": TemporalEnsembling,
    "mean_teacher": MeanTeacher,
    "mean_teacher_fast_swa": MeanTeacherFastSWA,
    "vat": VAT,
    "vat_entmin": VATEntMin,
    "vadd": VAdD,
    "vadd_vat": VAdDVAT,
    "pi_sntg": PiSNTG,
    "temporal_ensembling_sntg": TemporalEnsemblingSNTG,
    "mean_teacher_sntg": MeanTeacherSNTG,
    "vat_entmin_sntg": VATEntMinSNTG,
    "cvt": CVT,
    "cvt_vat": CVTVAT,
    "ct_gan": CTGAN,
    "mixup": Mixup,
    "manifold_mixup": ManifoldMixup,
    "local_mixup": LocalMixup,
    "mixup_e": MixupE,
    "mixmatch": MixMatch,
    "ict": ICT,
    "advmixup": AdvMixup,
    "mixup_lr": MixupLR,
    "mixup_lr_ict": MixupLRICT,
    "mmd_vae": MMDVAETraining,
    "varmixup": VarMixup,
    "mixup_r": MixupR,
    "varmixup_latent_adv": VarMixupLatentAdv,
    "varmixup_input_adv": VarMixupInputAdv,
    "varmixup_ict": VarMixupICT,
    "on_manifold_training": OnManifoldTraining,
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
    "LocalMixup",
    "MMDVAETraining",
    "ManifoldMixup",
    "MeanTeacher",
    "MeanTeacherFastSWA",
    "MeanTeacherSNTG",
    "Method",
    "MixMatch",
    "Mixup",
    "MixupE",
    "MixupLR",
    "MixupLRICT",
    "MixupR",
    "Model",
    "Needs",
    "OnManifoldTraining",
    "Origin",
    "PGDTraining",
    "PiModel",
    "PiSNTG",
    "SpaceName",
    "Step",
    "Supervised",
    "TemporalEnsembling",
    "TemporalEnsemblingSNTG",
    "Term",
    "VATEntMin",
    "VATEntMinSNTG",
    "VAdD",
    "VAdDVAT",
    "VarMixup",
    "VarMixupICT",
    "VarMixupInputAdv",
    "VarMixupLatentAdv",
]
