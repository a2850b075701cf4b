"""Which part of a model's tensors a rank holds under each ZeRO stage, and how parts become wholes.

DeepSpeed keeps weights and optimizer state as flat tensors, one per parameter group, of which every rank has
a part of the same size. A checkpoint holds whole tensors by parameter name, the same for all engines and
numbers of ranks. This is the only file that knows DeepSpeed's layout (0.19.8).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.train.lars import LARS, Segment
from pipeline.train.optim import load_named_state, named_state
from pipeline.train.ranks import Ranks


class Partition(ABC):
    """The trained tensors of a model under one stage.

    :ivar zero: the optimizer that DeepSpeed made of ours, or ours itself.
    """

    def __init__(self, model: nn.Module, zero, ranks: Ranks):
        self.model, self.zero, self.ranks = model, zero, ranks
        self.parameters = dict(model.named_parameters())

    @abstractmethod
    def local(self) -> list[Tensor]:
        """This rank's weights, changed in place by a step."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The whole state_dict, as ``local`` has it now; all ranks must call it."""

    @abstractmethod
    def load(self, weights: dict[str, Tensor]) -> None:
        """Puts a whole state_dict in."""

    @abstractmethod
    def gradients(self) -> dict[str, Tensor]:
        """Whole gradients by name, between backward and step; all ranks must call it."""

    @abstractmethod
    def state(self) -> dict[str, dict]:
        """The whole optimizer state by parameter name; all ranks must call it."""

    @abstractmethod
    def load_state(self, named: dict[str, dict]) -> None:
        """Puts ``state`` back."""


class Whole(Partition):
    """Stage 0: every rank holds everything."""

    def local(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.parameters.values()]

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)

    def gradients(self) -> dict[str, Tensor]:
        return {name: parameter.grad for name, parameter in self.parameters.items()}

    def state(self) -> dict[str, dict]:
        return named_state(self.zero, self.parameters)

    def load_state(self, named: dict[str, dict]) -> None:
        load_named_state(self.zero, self.parameters, named)


@dataclass(frozen=True)
class _Piece:
    """Where a parameter lies in its group.

    :ivar offset: of its first number in the group's flat tensor, or in a rank's part of it.
    """

    name: str
    shape: torch.Size
    offset: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class _Flat(Partition):
    """What stages 1 to 3 share."""

    def __init__(self, model: nn.Module, zero, ranks: Ranks):
        super().__init__(model, zero, ranks)
        names = {parameter: name for name, parameter in self.parameters.items()}
        self.groups = [list(self._pieces(names, group)) for group in self._grouped]
        if isinstance(zero.optimizer, LARS):
            self._teach(zero.optimizer)

    # --- DeepSpeed's layout -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def _grouped(self) -> list[list[nn.Parameter]]:
        """The model's parameters, by group."""

    @property
    @abstractmethod
    def _flats(self) -> list[Tensor]:
        """This rank's part (n,) of every group's weights, which the optimizer updates."""

    @abstractmethod
    def _pieces(self, names: dict[nn.Parameter, str], group: Sequence[nn.Parameter]) -> Iterator[_Piece]:
        """The group's parameters in their order."""

    @abstractmethod
    def _cut(self, parts: Tensor, piece: _Piece) -> Tensor:
        """One parameter (numel,) out of all ranks' parts (ranks, n)."""

    @abstractmethod
    def _put(self, parts: Tensor, piece: _Piece, values: Tensor) -> None:
        """The inverse of ``_cut``, in place."""

    @abstractmethod
    def _segment(self, piece: _Piece, n: int) -> tuple[int, int]:
        """Offset and length of what this rank's part (n,) holds of a parameter; length 0 for nothing."""

    # --- whole tensors from parts, and back ---------------------------------------------------------------

    def _whole(self, own: Sequence[Tensor]) -> dict[str, Tensor]:
        """Whole tensors by name from this rank's part (n,) of every group."""
        whole = {}
        for part, group in zip(own, self.groups, strict=True):
            gathered = part.new_empty(self.ranks.world * part.numel())
            dist.all_gather_into_tensor(gathered, part.detach())
            parts = gathered.view(self.ranks.world, -1)
            whole |= {piece.name: self._cut(parts, piece).view(piece.shape) for piece in group}
        return {name: whole[name] for name in self.parameters}

    def _part(self, number: int, whole: dict[str, Tensor]) -> Tensor:
        """This rank's part (n,) of group ``number``, from whole tensors by name."""
        flat = self._flats[number]
        parts = flat.new_zeros(self.ranks.world, flat.numel())
        for piece in self.groups[number]:
            self._put(parts, piece, whole[piece.name].reshape(-1).to(flat))
        return parts[self.ranks.rank].clone()

    def gradients(self) -> dict[str, Tensor]:
        parts = []
        for number, flat in enumerate(self._flats):
            found = torch.cat([tensor.reshape(-1) for tensor in self.zero.averaged_gradients[number]])
            parts.append(nn.functional.pad(found, (0, flat.numel() - found.numel())))
        return self._whole(parts)

    # --- optimizer state ----------------------------------------------------------------------------------

    def state(self) -> dict[str, dict]:
        named = {name: {} for name in self.parameters}
        states = [self.zero.optimizer.state.get(flat, {}) for flat in self._flats]
        for key in states[0]:
            if states[0][key].ndim:
                for name, tensor in self._whole([state[key] for state in states]).items():
                    named[name][key] = tensor
            else:  # AdamW's step, (), of the whole group
                for state, group in zip(states, self.groups, strict=True):
                    for piece in group:
                        named[piece.name][key] = state[key]
        return named

    def load_state(self, named: dict[str, dict]) -> None:
        for number, (flat, group) in enumerate(zip(self._flats, self.groups, strict=True)):
            state = self.zero.optimizer.state[flat]
            state.clear()
            for key, value in named[group[0].name].items():
                if value.ndim:
                    state[key] = self._part(number, {piece.name: named[piece.name][key] for piece in group})
                else:
                    state[key] = value.to(flat.device, copy=True)

    def _teach(self, optimizer: LARS) -> None:
        """LARS must know which layer each stretch of a flat tensor belongs to."""
        layers = {name: number for number, name in enumerate(self.parameters)}
        segments = {}
        for flat, group in zip(self._flats, self.groups, strict=True):
            held = [(self._segment(piece, flat.numel()), layers[piece.name]) for piece in group]
            segments[flat] = [Segment(offset, numel, layer) for (offset, numel), layer in held if numel]
        optimizer.shard(segments, len(layers), dist.all_reduce)


class Chained(_Flat):
    """Stages 1 and 2: a group's parameters end to end, cut into one part per rank.

    Every rank also holds the whole model, which DeepSpeed renews from the parts after each step.
    """

    @property
    def _grouped(self) -> list[list[nn.Parameter]]:
        return self.zero.bit16_groups

    @property
    def _flats(self) -> list[Tensor]:
        return self.zero.single_partition_of_fp32_groups

    def _pieces(self, names: dict[nn.Parameter, str], group: Sequence[nn.Parameter]) -> Iterator[_Piece]:
        offset = 0
        for parameter in group:
            yield _Piece(names[parameter], parameter.shape, offset)
            offset += parameter.numel()

    def _cut(self, parts: Tensor, piece: _Piece) -> Tensor:
        return parts.view(-1).narrow(0, piece.offset, piece.numel)

    def _put(self, parts: Tensor, piece: _Piece, values: Tensor) -> None:
        self._cut(parts, piece).copy_(values)

    def _segment(self, piece: _Piece, n: int) -> tuple[int, int]:
        begin = self.ranks.rank * n
        first, last = max(piece.offset, begin), min(piece.offset + piece.numel, begin + n)
        return first - begin, max(0, last - first)

    def local(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.parameters.values()]

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)
        self.zero.refresh_fp32_params()


class Sliced(_Flat):
    """Stage 3: every parameter is cut into one slice per rank; a group's slices lie end to end."""

    @property
    def _grouped(self) -> list[list[nn.Parameter]]:
        return self.zero.fp16_groups

    @property
    def _flats(self) -> list[Tensor]:
        return self.zero.fp32_partitioned_groups_flat

    def _pieces(self, names: dict[nn.Parameter, str], group: Sequence[nn.Parameter]) -> Iterator[_Piece]:
        offset = 0
        for parameter in group:
            piece = _Piece(names[parameter], parameter.ds_shape, offset)
            yield piece
            offset += self._slice(piece)

    def _slice(self, piece: _Piece) -> int:
        """Numbers of the parameter on a rank; the last ranks' are padded."""
        return -(-piece.numel // self.ranks.world)

    def _cut(self, parts: Tensor, piece: _Piece) -> Tensor:
        return parts[:, piece.offset : piece.offset + self._slice(piece)].reshape(-1)[: piece.numel]

    def _put(self, parts: Tensor, piece: _Piece, values: Tensor) -> None:
        size = self._slice(piece)
        padded = nn.functional.pad(values, (0, size * self.ranks.world - piece.numel))
        parts[:, piece.offset : piece.offset + size] = padded.view(self.ranks.world, size)

    def _segment(self, piece: _Piece, n: int) -> tuple[int, int]:
        size = self._slice(piece)
        return piece.offset, min(max(piece.numel - self.ranks.rank * size, 0), size)

    def local(self) -> list[Tensor]:
        return [flat.detach() for flat in self._flats]

    def weights(self) -> dict[str, Tensor]:
        # Not from the model: small parameters stay gathered there, and would not follow ``local``.
        return self.model.state_dict() | self._whole(self._flats)

    def load(self, weights: dict[str, Tensor]) -> None:
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(list(self.parameters.values()), modifier_rank=0):
            self.model.load_state_dict(weights)
        self.zero.refresh_fp32_params()
