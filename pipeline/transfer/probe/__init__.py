"""The frozen probe: logistic regression on features, its penalty chosen on validation pictures.

The lineage's protocol (Kornblith et al. 2019; SimCLR, arXiv 2002.05709, App. B.8; its code is
google-research's linear_eval.py): over the pictures' features x_i and classes y_i, minimise

    F(W, b) = sum_i cross_entropy(W x_i + b, y_i) + lambda * ||W||^2          (a sum; b is not penalised)

for 45 values of lambda from 1e-6 to 1e5, take the best on validation, refit on training and validation,
test once. scikit-learn minimises C * sum_i cross_entropy + ||W||^2 / 2, so C = 1 / (2 lambda). Grids are
not comparable between papers without this: DINOv2's runs over C, ssl-transfer's has C = 1 / lambda.

Where a picture may show several classes, each class has a binary problem of its own, at the same lambda.
``choice`` is the protocol, ``problem`` and ``lbfgs`` solve it; ``nearest`` and ``shots`` ask other things
of the same features.
"""

from pipeline.transfer.probe.choice import LAMBDAS, Choice, choose, fit, probe
from pipeline.transfer.probe.linear import Probe
from pipeline.transfer.probe.nearest import neighbours
from pipeline.transfer.probe.shots import few_shots

__all__ = ["LAMBDAS", "Choice", "Probe", "choose", "few_shots", "fit", "neighbours", "probe"]
