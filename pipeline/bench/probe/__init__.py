"""``launch.bench probe``: the probe's path over lambda against scikit-learn, and how fast features are had.

``made`` makes pictures and features, ``path`` and ``extraction`` measure, ``table`` and ``plot`` show it.
"""
