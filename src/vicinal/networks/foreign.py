"""Networks of other libraries: timm, torchvision, and image classifiers of Hugging Face Transformers.

A library is imported here and nowhere else, once one of its networks is asked for. Each function gives what `factory`
calls to make the network: its signature and docstring say what may be set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vicinal.errors import InputError, MissingExtraError, nearest, require
from vicinal.networks.passes import EVAL, run
from vicinal.networks.weights import Start, digest_of, first_line

HAS_PRETRAINED: tuple[str, ...] = ("timm", "hf")
"""The libraries, as in ``timm:NAME``, with a setting ``pretrained``."""


class ImageClassifier(nn.Module):
    """An image classifier of Transformers as a plain module: images in, logits out.

    Args:
        model: the library's model; its configuration says how many channels it takes.
        start: the pretrained weights that it started from, if any.
    """

    def __init__(self, model: Any, start: Start | None = None) -> None:
        super().__init__()
        self.model = model
        self.start = start
        self.channels: int = getattr(model.config, "num_channels", 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, H, W); a grey image is the same in every channel."""
        if x.shape[1] == 1:
            x = x.expand(-1, self.channels, -1, -1)
        logits: Tensor = self.model(pixel_values=x).logits
        return logits

    @property
    def config(self) -> str:
        """The model's configuration as JSON: what its architecture is built from again."""
        text: str = self.model.config.to_json_string(use_diff=False)
        return text


def config_of(network: nn.Module) -> str | None:
    """The configuration that a network is built from again without its folder, or None where there is none."""
    body = getattr(network, "body", None)
    return body.config if isinstance(body, ImageClassifier) else None


def start_of(network: nn.Module) -> Start | None:
    """The pretrained weights that a network's own library gave it, as far as they are known."""
    body = getattr(network, "body", None)
    return body.start if isinstance(body, ImageClassifier) else None


def timm(model: str) -> Callable[..., nn.Module]:
    """What makes the timm model of this name."""
    library = _library("timm", "timm", f"the network 'timm:{model}'")

    def create(*, in_channels: int, num_classes: int, pretrained: bool = False, **settings: Any) -> nn.Module:
        """A timm model.

        Args:
            in_channels: channels of the images.
            num_classes: number of classes.
            pretrained: start from the published weights (needs network access); ``weights`` names a local file.
            settings: further arguments of ``timm.create_model``.
        """
        made: nn.Module = library.create_model(
            model, pretrained=pretrained, in_chans=in_channels, num_classes=num_classes, **settings
        )
        return made

    return create


def torchvision(model: str) -> Callable[..., nn.Module]:
    """What makes the torchvision model of this name."""
    models = _library("torchvision.models", "timm", f"the network 'torchvision:{model}'")

    def create(*, num_classes: int, **settings: Any) -> nn.Module:
        """A torchvision model with random weights.

        Args:
            num_classes: number of classes.
            settings: further arguments of ``torchvision.models.get_model``.
        """
        made: nn.Module = models.get_model(model, weights=None, num_classes=num_classes, **settings)
        return made

    return create


def hugging_face(name: str, config: str | None = None) -> Callable[..., nn.Module]:
    """What makes an image classifier of Transformers from local files; nothing is downloaded, no code of theirs is run.

    Args:
        name: a folder with ``config.json`` and ``model.safetensors``, or the hub's name of a model in the local cache.
        config: the configuration as JSON, where the folder is not to be read: `ImageClassifier.config`.
    """
    library = _library("transformers", "transformers", f"the network 'hf:{name}'")

    def create(
        *,
        shape: tuple[int, ...],
        num_classes: int,
        pretrained: bool = True,
        attention: str = "eager",
        **settings: Any,
    ) -> nn.Module:
        """An image classifier of Hugging Face Transformers.

        Args:
            shape: of the images, (C, H, W).
            num_classes: number of classes; a model for another number gets a new head.
            pretrained: start from the weights in the folder, not from random ones.
            attention: implementation of attention. The plain one has derivatives of every order, which adversarial
                directions and penalties on gradients need; ``sdpa`` is faster.
            settings: fields of the model's configuration, such as ``image_size`` or ``hidden_dropout_prob``.
        """
        if len(shape) != 3:
            raise InputError("takes images, and the data are feature vectors")
        folder = None if config is not None else _folder(name)
        if folder is None:
            about = _from_json(library, str(config))
        else:
            about = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _configure(about, settings)
        about.num_labels = num_classes
        channels = getattr(about, "num_channels", 3)
        if shape[0] not in (1, channels):
            raise InputError(f"takes images of {channels} channels, and the data have {shape[0]}")
        auto = library.AutoModelForImageClassification
        # Weights that were saved in half precision are trained in full, like those of any other network.
        options: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
        if folder is None or not pretrained:
            made = ImageClassifier(auto.from_config(about, trust_remote_code=False, **options))
        else:
            with _quiet(library):
                model, found = auto.from_pretrained(
                    folder,
                    config=about,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,  # a head for other classes starts fresh
                    output_loading_info=True,
                    **options,
                )
            made = ImageClassifier(model, _start(name, folder, model, found).require())
        made.train()
        _check_size(made, shape)
        return made

    return create


def _configure(about: Any, settings: dict[str, Any]) -> None:
    known = [field for field in about.to_dict() if not field.startswith("_")]
    for field, value in settings.items():
        if field not in known:
            raise InputError(f"{field} is no field of its configuration; {nearest(field, known)}")
        setattr(about, field, value)


def _folder(name: str) -> Path:
    """Where the model's files are."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except Exception as error:  # no such name, no cache, or no such model in it
            raise InputError(
                "is no folder, and no model of that name is in the local cache of the hub; download it first, and name "
                "the folder that holds its config.json and model.safetensors"
            ) from error
    if not (folder / "config.json").is_file():
        raise InputError("has no config.json; name the folder of a model that Transformers saved")
    return folder


def _from_json(library: Any, text: str) -> Any:
    import json

    values = json.loads(text)
    return type(library.AutoConfig.for_model(values["model_type"])).from_dict(values)


def _start(name: str, folder: Path, model: nn.Module, found: dict[str, Any]) -> Start:
    """What Transformers says of its loading; it renames tensors of older versions itself."""
    shapes = {key: (theirs, ours) for key, theirs, ours in found["mismatched_keys"]}
    tensors = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    absent = [key for key in tensors if key in found["missing_keys"] and key not in shapes]
    resized = [
        f"{key} {'x'.join(map(str, ours))} instead of {'x'.join(map(str, theirs))}"
        for key, (theirs, ours) in sorted(shapes.items())
    ]
    return Start(
        name,
        digest_of(sorted(folder.glob("*.safetensors"))),
        loaded=len(tensors) - len(absent) - len(resized),
        tensors=len(tensors),
        absent=tuple(absent),
        resized=tuple(resized),
        unused=tuple(sorted(found["unexpected_keys"])),
    )


def _check_size(network: ImageClassifier, shape: tuple[int, ...]) -> None:
    """Whether the model takes images of this size: some take one size only, and say so when they are run."""
    size = getattr(network.model.config, "image_size", None)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if size is None or (height, width) == shape[1:]:
        return
    try:
        with torch.no_grad():
            run(network, torch.zeros(2, *shape), EVAL)
    except Exception as error:
        raise InputError(
            f"takes images of {height}x{width}, and the data have {shape[1]}x{shape[2]} ({first_line(error)}); read a "
            f"folder's images at its size (--data.size {height}), or set --network.image_size {shape[1]}, which starts "
            "its position embeddings anew"
        ) from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Without the library's table of what it loaded, which `Start` says in a line, and without its bar."""
    log = library.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _library(module: str, extra: str, purpose: str) -> Any:
    try:
        return require(module, extra, purpose)
    except MissingExtraError:
        if not module.startswith("torchvision"):
            raise
        raise MissingExtraError(
            f"{purpose} needs torchvision, which this package does not install: "
            "install the build that belongs to your torch, or use a timm model"
        ) from None
    except (ImportError, RuntimeError) as error:
        # timm imports torchvision, and a torchvision built for another torch fails with a RuntimeError.
        raise InputError(f"network: {purpose} cannot be imported: {first_line(error)}") from error
