"""Pictures in one folder per class, the layout of torchvision's ImageFolder and of nearly everybody.

``root/{train,val,test}/<class>/*`` with at least train, or ``root/<class>/*`` as a single train split.
Classes are the sorted folder names. Within a class the order is torchvision's: by folder, then by name.
"""

import os
from pathlib import Path

import numpy as np

from pipeline.config import UserError
from pipeline.progress import Bar

from .source import Files, Source

SPLITS = ("train", "val", "test")
MISNAMED = {
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "testing": "test",
    "training": "train",
}
# Those of torchvision.datasets.folder.IMG_EXTENSIONS.
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")


def read_imagefolder(root: Path | None) -> Source:
    """The picture files below ``root``; hidden files and stray files beside class folders don't count.

    :raises UserError: no such folder, no class folders, a class without pictures, splits that disagree
        on the classes, a link that leads out of ``root``.
    """
    root = existing(root, "imagefolder")
    if not (root / "train").is_dir():
        for name in ("val", "test"):
            if (root / name).is_dir():
                raise UserError(f"{root}: has {name} but no train; at least train/<class>/ is needed")
        classes = class_folders(root, root)
        if all(name.lower() in (*SPLITS, *MISNAMED) for name in classes):
            raise UserError(f"{root}: {', '.join(classes)} look like splits; call them train, val, test")
        return Source("imagefolder", classes, {"train": scan(root, "", classes)})
    for wrong, right in MISNAMED.items():
        if (root / wrong).is_dir():
            raise UserError(f"{root / wrong}: not a split's name; call the folder {right}, or move it away")
    names = [name for name in SPLITS if (root / name).is_dir()]
    classes = class_folders(root / "train", root)
    for name in names[1:]:
        agree(classes, class_folders(root / name, root), root / name)
    return Source("imagefolder", classes, {name: scan(root, name, classes) for name in names})


def existing(root: Path | None, source: str) -> Path:
    """:raises UserError: no folder is named, or there is none."""
    if root is None:
        raise UserError(f"{source}: name the folder that holds the pictures: --root DIR")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {source} needs the folder that holds the pictures")
    return root


def class_folders(folder: Path, root: Path) -> list[str]:
    """Sorted names of the folders in ``folder``.

    :raises UserError: there is none.
    """
    folders, files = entries(folder, root)
    if not folders:
        instead = f"holds {len(files)} pictures but no class folders" if files else "holds no class folders"
        raise UserError(f"{folder}: {instead}; pictures belong into {folder}/<class>/")
    return folders


def agree(classes: list[str], found: list[str], folder: Path) -> None:
    """:raises UserError: ``folder`` has a class that train lacks, or lacks one; the message names it."""
    for name in sorted(set(found) - set(classes)):
        raise UserError(f"{folder / name}: train has no class {name!r}; all splits need the same classes")
    for name in sorted(set(classes) - set(found)):
        raise UserError(f"{folder}: has no class {name!r} as train has; all splits need the same classes")


def scan(root: Path, inside: str, classes: list[str]) -> Files:
    """The pictures of the class folders in ``root/inside``.

    :raises UserError: a class holds no pictures.
    """
    paths, counts = [], []
    with Bar(f"reading {Path(root, inside)}", len(classes), "classes") as bar:
        for name in classes:
            found = _pictures(root, f"{inside}/{name}" if inside else name)
            if not found:
                kinds = " ".join(PICTURES)
                raise UserError(f"{Path(root, inside, name)}: a class without pictures ({kinds})")
            paths += found
            counts.append(len(found))
            bar.advance(1)
    return Files(root, paths, np.repeat(np.arange(len(classes), dtype=np.int64), counts))


def entries(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the picture files in ``folder``; not of hidden ones.

    :raises UserError: unreadable; a link to a folder, or to a file outside ``root``.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as found:
            for entry in found:  # the kind of an entry comes with the listing: no stat per file
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(_utf8(entry))
                elif entry.is_symlink():
                    files += _linked(entry, root)
                elif entry.name.lower().endswith(PICTURES) and entry.is_file(follow_symlinks=False):
                    files.append(_utf8(entry))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
    return sorted(folders), sorted(files)


def _pictures(root: Path, inside: str) -> list[str]:
    """Paths relative to ``root`` of all pictures below ``root/inside``."""
    found: dict[str, list[str]] = {}
    waiting = [inside]
    while waiting:
        folder = waiting.pop()
        folders, found[folder] = entries(Path(root, folder), root)
        waiting += [f"{folder}/{name}" for name in folders]
    return [f"{folder}/{name}" for folder in sorted(found) for name in found[folder]]


def _linked(entry: os.DirEntry, root: Path) -> list[str]:
    """The link's name if it is a picture of this folder tree, else nothing."""
    if entry.is_dir():
        raise UserError(f"{entry.path}: a link to a folder; links to folders are not followed: move it here")
    if not entry.name.lower().endswith(PICTURES):
        return []
    target = os.path.realpath(entry.path)
    if not os.path.isfile(target):
        raise UserError(f"{entry.path}: a link that leads to no file ({target}); remove it")
    if not Path(target).is_relative_to(os.path.realpath(root)):
        raise UserError(f"{entry.path}: a link out of {root}, to {target}; copy the picture here")
    return [_utf8(entry)]


def _utf8(entry: os.DirEntry) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{os.fsencode(entry.path)!r}: not a UTF-8 name; rename it") from None
    return entry.name
