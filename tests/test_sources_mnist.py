"""MNIST and Fashion-MNIST from each layout in which they are found, and never changed."""

import gzip
import hashlib
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision
from test_sources_idx import plain_idx

from pipeline.config import UserError
from pipeline.data.sources import read
from pipeline.data.sources.mnist import read_fashion_mnist, read_idx_source, read_mnist
from pipeline.data.sources.mnist_facts import FASHION, FILES, MNIST, NAMES

COUNTS = {"train": 13, "test": 7}


def drawn(seed: int) -> dict[str, np.ndarray]:
    """File name to array; 20 pictures in all."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for split, (images, labels) in FILES.items():
        arrays[images] = draw.integers(0, 256, (COUNTS[split], 28, 28), np.uint8)
        arrays[labels] = draw.integers(0, 10, COUNTS[split], np.uint8)
    return arrays


SMALL = drawn(28)


def facts(of=MNIST, **changes):
    """Those of the small arrays; nothing is installed, nothing can be reached."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/"
    sums = {name: hashlib.sha256(plain_idx(array)).hexdigest() for name, array in SMALL.items()}
    known = {"counts": COUNTS, "sha256": sums, "mirror": nobody, "npm_package": None, "system": None}
    return replace(of, **(known | changes))


def write(folder: Path, dotted=False, packed=False, arrays=SMALL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        spelled = (name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else "")
        content = plain_idx(array)
        (folder / spelled).write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return folder


def check(source) -> None:
    """It is the small arrays, three times gray."""
    assert list(source.splits) == ["train", "test"]
    for split, (images, labels) in FILES.items():
        found = source.splits[split]
        assert found.pixels.shape == (COUNTS[split], 28, 28, 3)
        assert all(np.array_equal(found.pixels[..., channel], SMALL[images]) for channel in range(3))
        assert found.labels.tolist() == SMALL[labels].tolist()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("of", "home"),
    [
        (MNIST, "."),
        (MNIST, "raw"),
        (MNIST, "MNIST/raw"),
        (MNIST, "data"),
        (MNIST, "package/data"),
        (FASHION, "."),
        (FASHION, "raw"),
        (FASHION, "FashionMNIST/raw"),
        (FASHION, "data/fashion"),
    ],
)
def test_every_layout_gives_the_same_pictures(tmp_path, of, home, packed, dotted):
    write(tmp_path / home, dotted, packed)
    before = content(tmp_path)
    source = read_idx_source(tmp_path, facts(of), tmp_path / "cache")
    check(source)
    assert (source.name, source.classes) == (of.name, list(of.classes))
    assert content(tmp_path) == before  # nothing is written into what the user names


@pytest.mark.parametrize("of", [MNIST, FASHION])
def test_the_files_are_read_as_torchvision_reads_them(tmp_path, of):
    oracle = {"mnist": torchvision.datasets.MNIST, "fashion-mnist": torchvision.datasets.FashionMNIST}[
        of.name
    ]
    for other, arrays in ((oracle, SMALL), (torchvision.datasets.KMNIST, drawn(1))):
        write(tmp_path / other.__name__ / "raw", arrays=arrays)  # torchvision's root may hold several
    source = read_idx_source(tmp_path, facts(of))
    for split, found in source.splits.items():
        theirs = oracle(str(tmp_path), train=split == "train")
        assert np.array_equal(found.pixels[..., 1], theirs.data.numpy())
        assert found.labels.tolist() == theirs.targets.tolist()
    if of is FASHION:
        assert source.classes == theirs.classes
    else:
        assert source.classes == [name[0] for name in theirs.classes]  # '0 - zero'


def test_addresses_and_sums_are_torchvisions():
    for ours, theirs in ((MNIST, torchvision.datasets.MNIST), (FASHION, torchvision.datasets.FashionMNIST)):
        assert ours.mirror in theirs.mirrors
        assert {f"{name}.gz": md5 for name, md5 in ours.gz_md5.items()} == dict(theirs.resources)


def test_both_are_sources_by_name(tmp_path):
    for name in ("mnist", "fashion-mnist"):
        with pytest.raises(
            UserError, match=r"holds no (Fashion-)?MNIST; it should hold train-images-idx3-ubyte"
        ):
            read(name, tmp_path)


def lost(root):
    os.remove(root / NAMES[2])
    return rf"{root}: t10k-images-idx3-ubyte \(or t10k-images-idx3-ubyte\.gz\) is missing"


def one_pixel(root):
    path = root / NAMES[0]
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    return r"train-images-idx3-ubyte: not MNIST's \(sha256 .*: damaged or changed; fetch it again"


def one_label(root):
    labels = SMALL[NAMES[3]].copy()
    labels[4] = (labels[4] + 1) % 10
    (root / NAMES[3]).write_bytes(plain_idx(labels))
    return r"t10k-labels-idx1-ubyte: not MNIST's"


def eleventh_class(root):
    labels = SMALL[NAMES[1]].copy()
    labels[5] = 10
    (root / NAMES[1]).write_bytes(plain_idx(labels))
    return r"train-labels-idx1-ubyte: label 10 of picture 5; there are 0 to 9"


def too_few(root):
    (root / NAMES[1]).write_bytes(plain_idx(SMALL[NAMES[1]][:-1]))
    return r"train-labels-idx1-ubyte: holds 12 bytes, 13 belong there"


def exchanged(root):
    shutil.copy(root / NAMES[1], root / NAMES[0])
    return r"train-images-idx3-ubyte: starts with 00 00 08 01"


@pytest.mark.parametrize("mistake", [lost, one_pixel, one_label, eleventh_class, too_few, exchanged])
def test_mistakes_are_one_line_that_names_the_file(tmp_path, mistake):
    message = mistake(write(tmp_path))
    with pytest.raises(UserError, match=message) as raised:
        read_idx_source(tmp_path, facts())
    assert "\n" not in str(raised.value)


def test_one_taken_for_the_other_is_told(tmp_path, monkeypatch):
    write(tmp_path)
    for name, own in facts().sha256.items():
        monkeypatch.setitem(FASHION.sha256, name, own)
    with pytest.raises(UserError, match="ubyte: Fashion-MNIST's, not MNIST's; take the source fashion-mnist"):
        read_idx_source(tmp_path, facts(sha256=MNIST.sha256))


def test_no_folder_is_a_users_mistake(tmp_path):
    with pytest.raises(
        UserError, match="gone: no such folder; MNIST needs the folder that holds train-images"
    ):
        read_mnist(tmp_path / "gone")
    with pytest.raises(UserError, match="no such folder; Fashion-MNIST needs"):
        read_fashion_mnist(write(tmp_path) / NAMES[0])


def test_what_the_system_has_is_taken_where_no_folder_is_named(tmp_path, capsys):
    system = write(tmp_path / "share/datasets", packed=True)
    check(read_idx_source(None, facts(FASHION, system=system), tmp_path / "cache"))
    assert f"Fashion-MNIST: {system}, verified\n" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
