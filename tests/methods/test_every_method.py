"""What must hold of every method of the package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.lab import Lab
from support.properties import PROPERTIES, passes_are_declared, settings_are_explained

from vicinal.methods import METHODS, Method

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


CLASSIFIERS = [name for name, kind in METHODS.items() if kind.trains == "classifier"]
COSTS = {
    "supervised": "f+b",
    "pi_model": "f+2F+b+2B",
    "temporal_ensembling": "f+F+b+B",
    "mean_teacher": "f+F+T+b+B",
    "mean_teacher_fast_swa": "f+F+T+b+B",
    "vat": "f+3F+b+B+X",
    "vat_entmin": "f+3F+b+2B+X",
    "vadd": "f+2F+2h+b+2B",
    "vadd_vat": "f+4F+2h+b+3B+X",
    "pi_sntg": "f+2F+b+2B",
    "temporal_ensembling_sntg": "f+F+b+B",
    "mean_teacher_sntg": "f+F+T+b+B",
    "vat_entmin_sntg": "f+3F+b+2B+X",
    "cvt": "f+2F+b+B",
    "cvt_vat": "f+3F+b+B+X",
    "ct_gan": "f+5F+2d+b+3B+X+y",
    "mixup": "f+b",
    "manifold_mixup": "f+b",
    "local_mixup": "f+b",
    "mixup_e": "2f+2b",
    "mixmatch": "f+4F+b+2B",
    "ict": "f+F+T+b+B",
    "advmixup": "f+2F+T+b+B+X",
    "mixup_lr": "f+7F+b+3B+2X",
    "mixup_lr_ict": "f+5F+T+b+2B+2X",
    "mmd_vae": "F+B",
    "varmixup": "f+e+d+b",
    "mixup_r": "f+e+d+b",
    "varmixup_latent_adv": "8f+e+8d+b+5x+5y",
    "varmixup_input_adv": "11f+e+d+b+10x",
    "varmixup_ict": "f+F+T+e+d+b+B",
    "on_manifold_training": "8f+e+8d+b+5x+5y",
    "fixmatch": "f+2F+b+B",
    "fgsm_training": "2f+b+x",
    "pgd_training": "11f+b+10x",
}
"""Passes of a step with the default settings; those of the published comparison of costs agree with it."""
JOINT = ("mixmatch", "mixup_lr")
"""Their mixed rows share passes: `test_mixmatch_passes` and `test_mixup_lr_passes` count images."""


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("holds", PROPERTIES)
def test_property(name: str, holds: Callable[[Lab, Method], None]) -> None:
    method = METHODS[name]()
    if name not in JOINT or holds is not passes_are_declared:
        holds(Lab.suited(method), method)


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_explained(name: str) -> None:
    settings_are_explained(Lab(), METHODS[name]())


def test_costs_are_those_of_the_table() -> None:
    assert {name: str(kind.cost) for name, kind in METHODS.items()} == COSTS
