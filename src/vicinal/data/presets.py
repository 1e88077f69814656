"""Well-known image data sets: where they are and what their columns are called."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vicinal.data.images import images, is_image_folder
from vicinal.data.types import Dataset
from vicinal.errors import InputError

DATA_VARIABLE = "VICINAL_DATA"
"""Environment variable naming a folder that holds the data sets of the presets, each in a folder of its own."""


def _preset(
    name: str,
    title: str,
    *,
    folder: str,
    hub_id: str | None,
    config: str | None = None,
    columns: tuple[str, str] = ("image", "label"),
    validation_is_test: bool = False,
) -> Callable[..., Dataset]:
    """The source of a well-known data set: `images` with its place and columns filled in.

    Args:
        name: name of the source.
        title: what it is, for its help text.
        folder: its folder under ``$VICINAL_DATA``.
        hub_id: its id on the hub, or None if it must be local.
        config: its configuration on the hub.
        columns: columns of the images and of the classes.
        validation_is_test: its published test part has no labels, so that its validation part serves as test part.
    """

    def source(*, path: str | None = None, size: int | None = None) -> Dataset:
        place, shown = _place(name, path, folder, hub_id)
        if is_image_folder(place):
            read = images(place, size=size)
        else:
            hub_config = config if place == hub_id else None
            read = images(place, image_column=columns[0], label_column=columns[1], config=hub_config, size=size)
        if validation_is_test and read.test is None:
            read = replace(read, test=read.validation, validation=None)
        return replace(read, name=name, source={**read.source, "data": shown, "preset": name})

    source.__name__ = source.__qualname__ = name
    elsewhere = f"else {hub_id!r} on the Hugging Face hub" if hub_id else "and there is no other default"
    source.__doc__ = f"""{title}

    Args:
        path: local folder of Parquet files in the layout of the hub, or of images, or one Parquet file; by default the
            folder {folder!r} in the folder that the environment variable {DATA_VARIABLE} names, {elsewhere}.
        size: height and width in pixels to resize the images to; by default they keep their size.

    Raises:
        InputError: it cannot be found or read.
    """
    return source


def _place(name: str, path: str | None, folder: str, hub_id: str | None) -> tuple[str, str]:
    """Where to read a preset from, and how to name that place whatever machine it is on."""
    if path is not None:
        if not Path(path).expanduser().exists():
            raise InputError(f"path: there is no file or folder {path!r}")
        return path, path
    root = os.environ.get(DATA_VARIABLE)
    if root and (Path(root) / folder).is_dir():
        return str(Path(root) / folder), f"${DATA_VARIABLE}/{folder}"
    if hub_id is None:
        raise InputError(
            f"{name} has no default place: give --data.path a folder of its Parquet files, "
            f"or let {DATA_VARIABLE} name the folder that holds {folder}/"
        )
    return hub_id, hub_id


cifar10 = _preset(
    "cifar10",
    "CIFAR-10: 50000 + 10000 RGB images of 32x32 pixels, 10 classes (Krizhevsky 2009).",
    folder="cifar10",
    hub_id="uoft-cs/cifar10",
    columns=("img", "label"),
)
cifar100 = _preset(
    "cifar100",
    "CIFAR-100: 50000 + 10000 RGB images of 32x32 pixels, 100 fine classes (Krizhevsky 2009).",
    folder="cifar100",
    hub_id="uoft-cs/cifar100",
    columns=("img", "fine_label"),
)
svhn = _preset(
    "svhn",
    "SVHN, cropped digits without the extra part: 73257 + 26032 RGB images of 32x32 pixels, 10 classes (Netzer 2011).",
    folder="svhn",
    hub_id="ufldl-stanford/svhn",
    config="cropped_digits",
)
tiny_imagenet = _preset(
    "tiny_imagenet",
    "Tiny-ImageNet: 100000 + 10000 RGB images of 64x64 pixels, 200 classes; tested on its published validation part.",
    folder="tiny-imagenet",
    hub_id="zh-plus/tiny-imagenet",
    validation_is_test=True,
)
mnist = _preset(
    "mnist",
    "MNIST: 60000 + 10000 grey images of 28x28 pixels, 10 digits (LeCun 1998).",
    folder="mnist",
    hub_id="ylecun/mnist",
)
fashion_mnist = _preset(
    "fashion_mnist",
    "Fashion-MNIST: 60000 + 10000 grey images of 28x28 pixels, 10 kinds of clothing (Xiao 2017).",
    folder="fashion-mnist",
    hub_id="zalando-datasets/fashion_mnist",
)
pneumoniamnist = _preset(
    "pneumoniamnist",
    "PneumoniaMNIST: 4708 + 524 + 624 grey chest X-rays of 28x28 pixels, normal or pneumonia (MedMNIST, Yang 2023).",
    folder="pneumoniamnist",
    hub_id=None,
)
PRESETS = (cifar10, cifar100, svhn, tiny_imagenet, mnist, fashion_mnist, pneumoniamnist)
