"""How fast a training step is: ours against those of torchvision's and timm's scripts, and against itself.

Everybody trains on one batch that is there already and never changes, so that no loading is measured, in a
process of their own, and they take turns (``players``). Ours is the loop of ``launch.train`` as it is.
"""
