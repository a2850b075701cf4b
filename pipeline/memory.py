"""Memory that one step gives back is what the next one asks for."""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_memory() -> bool:
    """Tells glibc to keep what this process frees, and to use it again; whether it could be told.

    By itself it gives blocks of more than 32 MB, and the heap's free end, back to the system, which clears
    every page of them when they are wanted again. A step of ResNet-50 on 16 pictures of 224x224 (two cores)
    had 350,000 page faults and took 1.5 s; told to keep them, none and 1.1 s, in 5 to 20 % more memory.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False  # not glibc
    # Blocks of all sizes come from the heap, whose end stays.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
