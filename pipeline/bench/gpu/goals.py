"""What the figures are held against, and who says so."""

SHARE = 0.95
"""End to end, of the lower of the step alone and the loader alone: ours."""
FASTER = 1.25
"""Times torchvision's step (references/classification/train.py --amp) on that device in that run: ours."""
FIRST_MARK = 3500.0
"""Pictures/s of ResNet-50 on one H200, synthetic: ours."""
PUBLISHED = (
    ("NVIDIA's example, A100", "NVIDIA DeepLearningExamples, PyTorch and DALI, one A100-80GB", 2470.0),
    (
        "MLPerf v4.0, MXNet, H200",
        "MLPerf v4.0, MXNet, hand-fused, decoded pictures cached, H200",
        7950.0,
    ),
)
"""Pictures/s of ResNet-50 on one GPU (MLPerf's: of eight), by a short and a long name."""
PAPER = {"resnet20": 8.75, "resnet32": 7.51, "resnet44": 7.17, "resnet56": 6.97, "resnet110": 6.43}
"""Test error in percent: He et al. 2015, table 6. Of plain nets it has a figure and no numbers."""
OWN = {"resnet20_fast": 9.12}
"""Test error in percent on two CPU cores, seed 0 (its config's header)."""
AIRBENCH = (
    "cifar10-airbench: 94 % in 2.59 s on one A100 of 400 W, by another network and optimizer (its README)"
)
