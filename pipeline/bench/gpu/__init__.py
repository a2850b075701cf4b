"""``launch.bench gpu``: what a GPU gives and whether it computes the same, unattended and in parts.

``run`` goes through the sections in their order of importance, each until its time is up; what there was no
time for is told, and a second call adds it. ``cases`` has what most sections share: a list of things to
measure, worked off by a process of its own, each kept as soon as it is known. With ``--device cpu --tiny``
every line runs but those marked "CUDA only".
"""
