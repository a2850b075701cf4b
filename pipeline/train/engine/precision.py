"""Mixed precision: the forward pass in a narrower type, parameters in fp32."""

import torch

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
