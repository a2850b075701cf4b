"""Random numbers that are looked up, not drawn in turn: a counter-based generator.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is the run's
seed, the counter is (picture, epoch, purpose, block), so a picture's crop in an epoch is the same
whoever computes it, whenever, beside whatever else.
"""

import numpy as np

_ROUNDS = 10
_MULTIPLIER = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

# Each use of randomness has a number of its own, so that a new one never changes the old ones' draws.
CROP, FLIP, POLICY, ERASE, MIX, REPLACE = range(6)


def philox(counter: list[np.ndarray], key: tuple[int, int]) -> list[np.ndarray]:
    """Four (N,) uint64 arrays below 2**32 from four such counter words and two key words."""
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in counter)
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(_ROUNDS):
        p0, p1 = _MULTIPLIER[0] * c0, _MULTIPLIER[1] * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


def uniform(count: int, pictures: np.ndarray, epochs: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """(N, count) float64 in [0, 1), a function of (seed, epoch, picture, purpose) alone.

    :param pictures: (N,) integers in [0, 2**32).
    :param epochs: (N,) integers in [0, 2**32).
    """
    pictures, epochs = np.asarray(pictures, np.uint64), np.asarray(epochs, np.uint64)
    assert (pictures <= _LOW).all()
    assert (epochs <= _LOW).all()
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    shape = (len(pictures), len(blocks))
    counter = [
        np.broadcast_to(pictures[:, None], shape),
        np.broadcast_to(epochs[:, None], shape),
        np.full(shape, purpose, np.uint64),
        np.broadcast_to(blocks, shape),
    ]
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    return np.stack(words, axis=2).reshape(len(pictures), -1)[:, :count] / 2.0**32
