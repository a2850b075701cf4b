"""How fast our parts are beside what a user would pick instead: ratios within one run, never alone.

``launch.bench loader`` measures the loader: each round of each contestant is a process of its own
(``child``), and the contestants take turns. ``launch.bench step`` measures a training step: see ``step``.
"""
