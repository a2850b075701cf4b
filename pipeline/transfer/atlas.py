"""Test pictures on a plane, near each other where their features are: for the eye, nothing is measured on it.

t-SNE (van der Maaten & Hinton 2008) as scikit-learn has it, from the features' first principal components.
"""

import io
import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.files import write_whole
from pipeline.monitor.samples import spread
from pipeline.transfer.frozen import Seen

COMPONENTS, PERPLEXITY = 50, 30
SEVERAL = -1
"""Label of a picture that shows not just one class."""


def keep_map(seen: Seen, most: int, identity: dict, file: Path) -> None:
    """Of the first seed's test pictures, evenly through them: ``places`` (K, 2) float32, ``labels`` (K,) and
    ``method``, in words; nothing is done if the file has just these.

    :param identity: of the features and pictures.
    """
    about = json.dumps(identity | {"map": most, "method": _method(most)}, sort_keys=True)
    if _kept(file) == about:
        return
    tested = seen.task.draws[0].tested
    rows = spread(len(tested), most)
    labels = seen.task.labels(seen.task.test(0))[rows]
    if labels.ndim == 2:
        labels = np.where((labels > 0).sum(1) == 1, labels.argmax(1), SEVERAL)
    whole = io.BytesIO()
    np.savez_compressed(
        whole, places=places(seen.pool[tested[rows]]), labels=labels.astype(np.int64),
        method=_method(len(rows)), identity=about,
    )  # fmt: skip
    write_whole(file, whole.getvalue())


def places(features: np.ndarray) -> np.ndarray:
    """(K, D) features, K >= 4, to (K, 2) float32; the same ones on the same machine."""
    # A second to import, on every rank: none of them may be asked for a map.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    # Sums over threads come in any order, and t-SNE makes other maps of other roundings.
    with threadpool_limits(1):
        components = min(COMPONENTS, *features.shape)
        inputs = PCA(components, svd_solver="full").fit_transform(features.astype(np.float64))
        tsne = TSNE(perplexity=_perplexity(len(features)), init="pca", random_state=0, n_jobs=1)
        return tsne.fit_transform(inputs).astype(np.float32)


def _perplexity(pictures: int) -> float:
    return min(PERPLEXITY, (pictures - 1) / 3)


def _method(pictures: int) -> str:
    return f"t-SNE of {COMPONENTS} principal components, perplexity {_perplexity(pictures):.3g}"


def _kept(file: Path) -> str | None:
    try:
        with np.load(file, allow_pickle=False) as found:
            return str(found["identity"])
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):  # none there, or a damaged one
        return None
