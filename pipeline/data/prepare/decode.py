"""Decoding whole pictures with the decoder that training uses, so that what passes here passes there."""

from collections.abc import Sequence

import numpy as np
from nvidia.dali import fn, pipeline_def, types


class Decoder:
    """A DALI pipeline of one thread; as many of them as threads decode at a time."""

    def __init__(self):
        self._next: list[np.ndarray] = []
        self._pipe = None

    def decode(self, encoded: Sequence[bytes]) -> list[np.ndarray | None]:
        """(H, W, 3) uint8 RGB each, or none for one that cannot be decoded."""
        found = self._batch(encoded)
        if found is not None:
            return found
        if len(encoded) == 1:
            return [None]
        half = len(encoded) // 2
        return self.decode(encoded[:half]) + self.decode(encoded[half:])

    def _batch(self, encoded: Sequence[bytes]) -> list[np.ndarray] | None:
        """None if one of them cannot be decoded; DALI does not always say which."""
        self._next = [np.frombuffer(each, np.uint8) for each in encoded]
        self._pipe = self._pipe or self._build()
        try:
            (out,) = self._pipe.run()
        except RuntimeError:
            self._pipe = None  # no longer valid, by DALI's own word
            return None
        return [np.array(out.at(number)) for number in range(len(encoded))]

    def _build(self):
        @pipeline_def
        def whole():
            encoded = fn.external_source(lambda: self._next, batch=True)
            return fn.decoders.image(encoded, device="cpu", output_type=types.RGB, adjust_orientation=False)

        # Nothing is prefetched: each run decodes what was put into ``_next`` just before.
        how = {"num_threads": 1, "device_id": None, "prefetch_queue_depth": 1, "exec_dynamic": True}
        pipe = whole(batch_size=64, **how)
        pipe.build()
        return pipe
