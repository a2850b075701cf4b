"""Mixed precision: the forward pass in a narrower type, parameters in fp32."""

import torch
from torch.amp import GradScaler

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The autocast dtype of a config's ``train.precision`` on a device."""
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return _DTYPES[precision]


def autocast(dtype: torch.dtype, device: torch.device):
    """The forward pass's precision; parameters stay fp32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


class LossScale:
    """By which an fp16 loss is multiplied, so that its gradients do not vanish: halved after an overflow,
    doubled after 2000 good steps (Micikevicius et al. 2018, arXiv:1710.03740, 3.2).

    The rule and the state are those of torch.amp.GradScaler, which learns of overflows by unscaling gradients
    itself; this one is told, where another does that.
    """

    def __init__(self):
        self._state = GradScaler("cpu").state_dict()

    @property
    def value(self) -> float:
        return self._state["scale"]

    def update(self, *, overflow: bool) -> None:
        """After a step, which an overflow has skipped."""
        state = self._state
        state["_growth_tracker"] = 0 if overflow else state["_growth_tracker"] + 1
        if overflow:
            state["scale"] *= state["backoff_factor"]
        elif state["_growth_tracker"] == state["growth_interval"]:
            state["scale"] *= state["growth_factor"]
            state["_growth_tracker"] = 0

    def state_dict(self) -> dict:
        return dict(self._state)

    def load_state_dict(self, state: dict) -> None:
        self._state = dict(state)
