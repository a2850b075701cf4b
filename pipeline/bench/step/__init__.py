"""How fast a training step is: ours against those of torchvision's and timm's scripts, and against itself.

Everything runs on one batch that is there already and never changes, so that no loading is measured. Ours is
the loop of ``launch.train`` as it is; between its steps the others take their turns (``relay``).
"""
