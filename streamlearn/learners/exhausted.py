"""How a learner says that it got no memory."""

import torch

SAID = ("can't allocate memory", "not enough memory", "out of memory")  # torch's CPU allocator raises a plain RuntimeError


def is_exhausted(error: Exception) -> bool:
    """Whether an error out of `learn` means that memory did not suffice, on the host or on the device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)
