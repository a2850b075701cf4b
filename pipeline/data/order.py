"""Which picture stands at a position of the training stream: a pure function, never a remembered state.

The stream of a run is endless: position p lies in epoch p // n at place p % n, and each epoch is a
permutation of the n pictures keyed by (seed, epoch). A step takes B consecutive positions, so a step may
cross from one epoch into the next, every step is full, and nothing is dropped. World size, accumulation
and workers only cut a step into pieces; they never enter the order. The whole state of a loader is
therefore its step number, and a run goes on anywhere with any number of GPUs.

The permutation is a generalised Feistel network on a mixed-radix square just larger than n, with cycle
walking (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 5): O(1) memory, no
start-up cost, every position computed on its own.
"""

import math

import numpy as np

from pipeline.config import UserError

ROUNDS = 8
# splitmix64 (Steele, Lea and Flood 2014): the golden-ratio increment and Stafford's finaliser, mix 13.
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(x: np.ndarray) -> np.ndarray:
    """Bijective avalanche of uint64 values; changes and returns ``x``."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _round_keys(seed: int, epoch: int) -> np.ndarray:
    """(ROUNDS,) uint64, unrelated for neighbouring seeds and epochs."""
    key = _mix(np.array([seed & _MASK], np.uint64))
    key ^= np.uint64((epoch * _GOLDEN) & _MASK)
    steps = np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(_mix(key) + steps)


def permute(positions: np.ndarray, n: int, seed: int, epoch: int) -> np.ndarray:
    """The pictures at these places of one epoch.

    :param positions: (N,) integers in [0, n), any order, repeats allowed.
    :return: (N,) int64 in [0, n); over all n positions a permutation.
    """
    low_side = math.isqrt(n - 1) + 1 if n > 1 else 1  # ceil of the square root
    high_side = -(-n // low_side)
    keys = _round_keys(seed, epoch)
    found = np.asarray(positions, np.int64).astype(np.uint64)
    outside = np.arange(len(found))
    # The square holds fewer than sqrt(n) numbers beyond n, so hardly any position walks more than once.
    found = _feistel(found, low_side, high_side, keys)
    while (outside := outside[found[outside] >= n]).size:
        found[outside] = _feistel(found[outside], low_side, high_side, keys)
    return found.astype(np.int64)


def _feistel(x: np.ndarray, low_side: int, high_side: int, keys: np.ndarray) -> np.ndarray:
    """A bijection of [0, low_side * high_side), uint64 in and out."""
    low_side, high_side = np.uint64(low_side), np.uint64(high_side)
    high = x // low_side
    low = x - high * low_side
    for number, key in enumerate(keys):
        if number % 2 == 0:
            high = (high + _below(_mix(low + key), high_side)) % high_side
        else:
            low = (low + _below(_mix(high + key), low_side)) % low_side
    return high * low_side + low


def _below(x: np.ndarray, side: np.uint64) -> np.ndarray:
    """Uniform in [0, side) from the upper 32 bits: a product and a shift, cheaper than a remainder."""
    assert side < 2**32
    return ((x >> np.uint64(32)) * side) >> np.uint64(32)


class Order:
    """The stream of pictures of one run.

    :param n: pictures in the training split.
    :param batch: the global batch B.
    """

    def __init__(self, n: int, batch: int, seed: int):
        assert n > 0
        assert batch > 0
        self.n, self.batch, self.seed = n, batch, seed

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures and their epochs at positions of the endless stream: two (N,) int64."""
        epochs, places = np.divmod(np.asarray(positions, np.int64), self.n)
        pictures = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            pictures[here] = permute(places[here], self.n, self.seed, int(epoch))
        return pictures, epochs

    def piece(self, step: int, number: int, pieces: int) -> tuple[np.ndarray, np.ndarray]:
        """Piece ``number`` of ``pieces`` equal ones of step ``step``: pictures and epochs, (B/pieces,)."""
        size = self.batch // pieces
        start = step * self.batch + number * size
        return self.at(np.arange(start, start + size))


def share(batch: int, world: int, accumulate: int, key: str = "train.batch", in_pairs: bool = False) -> int:
    """Pictures in one micro-batch of one rank.

    :param key: where the batch stands in the config. :param in_pairs: pictures are mixed with each other.

    :raises UserError: the global batch cannot be cut into world x accumulate equal pieces, or not into even
        ones where they must be.
    """
    pieces = world * accumulate
    if batch % pieces:
        near = sorted({max(1, batch // pieces) * pieces, (batch // pieces + 1) * pieces})
        raise UserError(
            f"{key}: {batch} pictures cannot be split over {world} ranks x {accumulate} accumulated "
            f"micro-batches; the nearest that can: {' or '.join(map(str, near))}"
        )
    micro_batch = batch // pieces
    if in_pairs and micro_batch % 2:
        raise UserError(
            f"{key}: {batch} gives each of {world} ranks micro-batches of {micro_batch}; mixup and cutmix "
            "mix pairs, so that number must be even"
        )
    return micro_batch
