"""Small collections in exactly the published layouts of Caltech-101, VOC2007, CUB, Aircraft and Cars."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from test_sources import draw

from pipeline.data.sources.voc2007 import CLASSES as VOC_CLASSES

TAR = "101_ObjectCategories.tar.gz"
CALTECH = {"BACKGROUND_Google": 33, "accordion": 31, "Faces": 34}
# Picture's id, and the classes that it shows plainly and with difficulty.
VOC = {
    "train": {"000012": (["car"], []), "000017": (["horse", "person"], []), "000023": ([], ["bicycle"])},
    "val": {"000005": (["chair"], ["tvmonitor"]), "000007": (["car"], [])},
    "test": {"000001": (["dog", "person"], []), "000002": (["train"], ["person"])},
}
BIRDS = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
CUB = {  # the picture's id: class id, is_training_image
    1: (1, 0), 2: (1, 1), 3: (1, 1), 4: (2, 0), 5: (2, 1), 9: (3, 1), 10: (3, 0), 11: (3, 1),
}  # fmt: skip
VARIANTS = ["707-320", "BAE 146-200", "F/A-18", "Yak-42"]
AIRCRAFT = {
    "train": {"1025794": "707-320", "0481847": "BAE 146-200", "0062765": "F/A-18"},
    "val": {"1340192": "Yak-42", "0056978": "BAE 146-200"},
    "test": {"0074171": "F/A-18", "1514522": "707-320", "0807618": "Yak-42"},
}
CAR_NAMES = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
CARS = {"train": [3, 1, 2, 2, 1], "test": [2, 3, 1]}


def caltech101(root: Path, counts=CALTECH, draw=draw) -> Path:
    for name, count in counts.items():
        for number in range(1, count + 1):
            draw(root / f"101_ObjectCategories/{name}/image_{number:04d}.jpg")
    return root


def voc2007(root: Path, splits=("train", "val", "test"), content=VOC, draw=draw) -> Path:
    home = root / "VOCdevkit/VOC2007"
    lists = home / "ImageSets/Main"
    lists.mkdir(parents=True, exist_ok=True)
    sets = {split: content[split] for split in splits}
    if "train" in sets and "val" in sets:
        sets["trainval"] = dict(sorted((content["train"] | content["val"]).items()))
    for split, pictures in sets.items():
        (lists / f"{split}.txt").write_text("".join(f"{number}\n" for number in pictures))
        for name in VOC_CLASSES:
            flags = {
                n: 1 if name in plain else 0 if name in hard else -1 for n, (plain, hard) in pictures.items()
            }
            text = "".join(f"{number} {flag:2d}\n" for number, flag in flags.items())
            (lists / f"{name}_{split}.txt").write_text(text)
        for number in pictures:
            draw(home / f"JPEGImages/{number}.jpg")
    return root


def cub200(root: Path, birds=BIRDS, pictures=CUB, draw=draw) -> Path:
    home = root / "CUB_200_2011"
    names = {
        number: f"{birds[bird - 1]}/{birds[bird - 1][4:]}_{number:04d}_796.jpg"
        for number, (bird, _) in pictures.items()
    }
    for name in names.values():
        draw(home / "images" / name)
    write = {
        "images.txt": names,
        "image_class_labels.txt": {number: bird for number, (bird, _) in pictures.items()},
        "train_test_split.txt": {number: train for number, (_, train) in pictures.items()},
        "classes.txt": dict(enumerate(birds, 1)),
    }
    for name, rows in write.items():
        (home / name).write_text("".join(f"{key} {value}\n" for key, value in rows.items()))
    (home / "bounding_boxes.txt").write_text(
        "".join(f"{number} 60.0 27.0 325.0 304.0\n" for number in pictures)
    )
    return root


def with_banner(path: Path) -> None:
    Image.new("RGB", (32, 40), (9, 99, 199)).save(path)  # above the banner too


def aircraft(root: Path, variants=VARIANTS, content=AIRCRAFT, draw=with_banner) -> Path:
    data = root / "fgvc-aircraft-2013b/data"
    (data / "images").mkdir(parents=True)
    (data / "variants.txt").write_text("".join(f"{name}\n" for name in variants))
    for split, rows in {**content, "trainval": content["train"] | content["val"]}.items():
        text = "".join(f"{picture} {name}\n" for picture, name in rows.items())
        (data / f"images_variant_{split}.txt").write_text(text)
        for picture in rows:
            draw(data / f"images/{picture}.jpg")
    return root


def annotations(path: Path, classes: list[int], labelled: bool = True) -> None:
    """As the devkit's: a (1, N) struct array of boxes, class (unless ``labelled`` is off) and fname."""
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", *["class"] * labelled, "fname"]
    rows = np.empty((1, len(classes)), [(field, object) for field in fields])
    for number, label in enumerate(classes):
        box = [np.uint16(30), np.uint16(52), np.uint16(246), np.uint16(147)]
        rows[0, number] = (*box, *[np.uint8(label)] * labelled, f"{number + 1:05d}.jpg")
    savemat(path, {"annotations": rows}, do_compression=True)


def cars(root: Path, names=CAR_NAMES, content=CARS, draw=draw) -> Path:
    home = root / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    table = {"class_names": np.array([names], object)}
    savemat(home / "devkit/cars_meta.mat", table, do_compression=True)
    for split, classes in content.items():
        for number in range(1, len(classes) + 1):
            draw(home / f"cars_{split}/{number:05d}.jpg")
    annotations(home / "devkit/cars_train_annos.mat", content["train"])
    annotations(home / "devkit/cars_test_annos.mat", content["test"], labelled=False)
    annotations(home / "cars_test_annos_withlabels.mat", content["test"])
    return root


WRITE = {"caltech101": caltech101, "voc2007": voc2007, "cub200": cub200, "aircraft": aircraft, "cars": cars}


def pack(archive: Path, folder: Path, *names: str) -> Path:
    """A tar of these folders of ``folder``, compressed by its name's ending, as publishers pack them."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    mode = "w:gz" if archive.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(archive, mode, format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            tar.add(folder / name, name)
    return archive


def archives(source: str, root: Path, scratch: Path) -> None:
    """The collection as its publisher's archives, in ``root``."""
    WRITE[source](scratch)
    if source == "caltech101":
        pack(root / TAR, scratch, "101_ObjectCategories")
    elif source == "voc2007":
        for name, splits in (("VOCtrainval", ("train", "val")), ("VOCtest", ("test",))):
            pack(root / f"{name}_06-Nov-2007.tar", voc2007(scratch / name, splits), "VOCdevkit")
    elif source == "cub200":
        (scratch / "attributes.txt").write_text("1 has_bill_shape::curved_(up_or_down)\n")
        pack(root / "CUB_200_2011.tgz", scratch, "attributes.txt", "CUB_200_2011")
    elif source == "aircraft":
        pack(root / "fgvc-aircraft-2013b.tar.gz", scratch, "fgvc-aircraft-2013b")
    else:
        for name, folder in (
            ("car_devkit", "devkit"),
            ("cars_train", "cars_train"),
            ("cars_test", "cars_test"),
        ):
            pack(root / f"{name}.tgz", scratch / "stanford_cars", folder)
        labels = "cars_test_annos_withlabels.mat"
        (root / labels).write_bytes((scratch / "stanford_cars" / labels).read_bytes())


def zip_caltech(root: Path, scratch: Path) -> Path:
    """caltech-101.zip as data.caltech.edu has it: the tar within, beside others."""
    tar = pack(scratch / "packed.tar.gz", caltech101(scratch), "101_ObjectCategories")
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "caltech-101.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("caltech-101/Annotations.tar", b"outlines")
        packed.write(tar, f"caltech-101/{TAR}")
        packed.writestr(f"__MACOSX/caltech-101/._{TAR}", b"finder")
    return root / "caltech-101.zip"
