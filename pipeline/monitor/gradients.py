"""Gradient flow: how large each layer's gradient and step are, and how much of the gradient is noise.

Vanishing and exploding gradients show in the norms from layer to layer, noisy ones in signal to noise.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import Train

LAYERS = (nn.Conv2d, nn.Linear)


class GradientFlow:
    """Looks at the gradients of single steps, and changes nothing in them.

    The K micro-batches of a step, all ranks' together, have independent gradients g_k, whose mean G the step
    applies. With the true gradient g and the covariance S of a picture's gradient, at a global batch of B,

        E mean |g_k|^2 = |g|^2 + K tr(S) / B,    E |G|^2 = |g|^2 + tr(S) / B,

    so that the two norms measured give unbiased estimates of the signal |g|^2 and of the noise tr(S) / B
    (McCandlish et al. 2018, arXiv:1812.06162, appendix A.1). With SyncBN the micro-batches of different
    ranks depend on each other, of which the estimates know nothing.

    :param model: bare; its layers are the trained convolutions and linear layers, in the order they are in.
    :param train: has B, its ``batch``, and the micro-batches that a rank accumulates.
    :param world: ranks; K = world x accumulate.
    """

    def __init__(self, model: nn.Module, train: Train, world: int):
        self._batch, self._accumulate, self._parts = train.batch, train.accumulate, world * train.accumulate
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        kinds = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
        self.layers = [name for name in kinds if f"{name}.weight" in self._parameters]

    @torch.no_grad()
    def begin(self, weights: dict[str, Tensor], loss_scale: float) -> None:
        """Before a step.

        :param weights: the model's state_dict. :param loss_scale: by which fp16 multiplies the loss; else 1.
        """
        self._before = [weight.clone() for weight in self._of_layers(weights)]
        # A micro-batch's loss is divided by their number, and its gradient with it.
        self._scale = self._accumulate / loss_scale
        self._own: dict[str, list[Tensor]] = {name: [] for name in self._parameters}
        # A parameter's own hook sees what one backward pass brings, before it is added up and reduced.
        self._hooks = [
            parameter.register_hook(partial(self._micro_batch, name))
            for name, parameter in self._parameters.items()
        ]

    def _micro_batch(self, name: str, gradient: Tensor) -> None:
        self._own[name].append(torch.linalg.vector_norm(gradient.detach()))

    @torch.no_grad()
    def look(self, gradients: dict[str, Tensor]) -> None:
        """Within the step: its gradients by parameter name, whole, as yet unclipped."""
        self._norms = torch.stack(torch._foreach_norm([gradients[name] for name in self._parameters]))  # (P,)

    @torch.no_grad()
    def end(self, weights: dict[str, Tensor], total: Callable[[Tensor], Tensor]) -> dict:
        """After the step, on all ranks.

        :param weights: the model's state_dict. :param total: sums a tensor over the ranks.
        :returns: ``layers``, names (L); ``norm`` (L), of the gradient of each layer's weights;
            ``update_ratio`` (L), |change of the weights| / |weights before|; ``snr`` (L), signal / noise of
            the step's gradient; ``total_norm``, ``total_snr`` of all parameters; ``noise_scale``, tr(S) /
            |g|^2 in pictures. None is what is not finite or not known: noise at K = 1, or a noise scale
            without a signal. An estimated signal may be negative where the true one is small; it is told
            as it is, for without such values a mean would be biased. norm^2 = signal + noise.
        """
        for hook in self._hooks:
            hook.remove()
        own = torch.stack([torch.stack(norms) for norms in self._own.values()])  # (P, accumulate)
        squares = total((own.double() * self._scale).square().sum(1).cpu()).numpy() / self._parts  # (P,)
        applied = self._norms.double().cpu().numpy() ** 2  # (P,)
        places = [list(self._parameters).index(f"{layer}.weight") for layer in self.layers]
        total_snr = _snr(applied.sum(), squares.sum(), self._parts)
        ratio = self._update_ratio(weights)
        del self._before, self._own, self._norms
        noise_scale = self._batch / total_snr if total_snr > 0 else np.nan
        return {
            "layers": self.layers,
            "norm": _plain(np.sqrt(applied[places])),
            "update_ratio": _plain(ratio),
            "snr": _plain(_snr(applied, squares, self._parts)[places]),
            "total_norm": _plain(np.sqrt(applied.sum())),
            "total_snr": _plain(total_snr),
            "noise_scale": _plain(noise_scale),
        }

    def _of_layers(self, weights: dict[str, Tensor]) -> list[Tensor]:
        return [weights[f"{layer}.weight"].detach() for layer in self.layers]

    def _update_ratio(self, weights: dict[str, Tensor]) -> np.ndarray:
        sizes = torch.stack(torch._foreach_norm(self._before))  # (L,)
        torch._foreach_sub_(self._before, self._of_layers(weights))
        return (torch.stack(torch._foreach_norm(self._before)) / sizes).double().cpu().numpy()


def _snr(applied: np.ndarray, squares: np.ndarray, parts: int) -> np.ndarray:
    """Signal / noise from |G|^2 and the mean of |g_k|^2 over K ``parts``; NaN where there is no telling."""
    # Each is estimated times K - 1, which cancels, and is zero where there is but one part.
    with np.errstate(invalid="ignore"):  # of a step whose gradient is not finite
        signal, noise = parts * applied - squares, squares - applied
    known = (noise > 0) & (parts > 1)
    return np.where(known, signal / np.where(known, noise, 1), np.nan)


def _plain(values: np.ndarray):
    """As JSON has it: lists of floats with six digits; what is not finite becomes none."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    return float(f"{values:.6g}") if np.isfinite(values) else None
