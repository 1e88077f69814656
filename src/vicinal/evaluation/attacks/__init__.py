"""Error under attack: gradient attacks within a ball around each input, their tables, and signs that they failed.

The attacker knows the true labels and the network (white box), or another one (black box). A figure after one step says
little: a network can hide from single steps. Read it beside one after many steps, and beside the flags of `sanity`.
"""

from vicinal.evaluation.attacks.algorithms import APGD, FGM, FGSM, PGD, GradientAttack, MomentumPGD
from vicinal.evaluation.attacks.losses import Loss, cross_entropy_against, log_odds_against
from vicinal.evaluation.attacks.peers import AutoAttack, PeerAttack, PeerName, peer_perturb, peer_robustness
from vicinal.evaluation.attacks.sanity import Flag, Sanity, radius_text, sanity
from vicinal.evaluation.attacks.search import CountName, Perturbed, SpaceName
from vicinal.evaluation.attacks.tables import AttackFigures, RobustnessTable, perturb, robustness

__all__ = [
    "APGD",
    "FGM",
    "FGSM",
    "PGD",
    "AttackFigures",
    "AutoAttack",
    "CountName",
    "Flag",
    "GradientAttack",
    "Loss",
    "MomentumPGD",
    "PeerAttack",
    "PeerName",
    "Perturbed",
    "RobustnessTable",
    "Sanity",
    "SpaceName",
    "cross_entropy_against",
    "log_odds_against",
    "peer_perturb",
    "peer_robustness",
    "perturb",
    "radius_text",
    "robustness",
    "sanity",
]
