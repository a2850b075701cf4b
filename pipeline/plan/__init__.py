"""What a run will need and how long it will take, before it runs: arithmetic alone, no GPU and no ranks."""

from pipeline.plan.short import brief

__all__ = ["brief"]
