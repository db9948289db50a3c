"""Where each torchvision family keeps its head: one table, one row for each architecture."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from layerkit.errors import HeadError

Kind = Literal["classification", "video", "segmentation", "detection", "other"]


@dataclass(frozen=True)
class Family:
    """One row: what kind of model it is, and the paths of the layers that know the number of outputs.

    Parameters
    ----------
    kind : str
        What the model is for.
    main : tuple of str
        The layers whose outputs are the model's answer; several where the model adds them up
        (LRASPP) or where one predictor has parts (Mask R-CNN).
    auxiliary : tuple of str
        The layers of auxiliary outputs, which a builder may have left out.
    dropout : str
        The name of the dropout applied directly before a layer and standing beside it.
        Inside an ``nn.Sequential`` the order of the modules tells it, and no name is needed.
    pools_after : bool
        Whether the layer is a 1x1 convolution whose outputs are averaged over all positions.
    drop_activation : str
        The activation after the layer that forbids negative outputs; it goes when the head is replaced.
    """

    kind: Kind
    main: tuple[str, ...]
    auxiliary: tuple[str, ...] = ()
    dropout: str = ""
    pools_after: bool = False
    drop_activation: str = ""


_BOX, _MASK = "roi_heads.box_predictor", "roi_heads.mask_predictor"
_DENSE = "head.classification_head"

# To add an architecture, add a row. Subclasses (torchvision's quantizable models, a user's own) inherit the
# row of their base class.
FAMILIES: dict[str, Family] = {
    # class              kind              main             auxiliary
    "AlexNet": Family("classification", ("classifier.6",)),
    "ConvNeXt": Family("classification", ("classifier.2",)),
    "DenseNet": Family("classification", ("classifier",)),
    "EfficientNet": Family("classification", ("classifier.1",)),
    "GoogLeNet": Family("classification", ("fc",), ("aux1.fc2", "aux2.fc2"), dropout="dropout"),
    "Inception3": Family("classification", ("fc",), ("AuxLogits.fc",), dropout="dropout"),
    "MNASNet": Family("classification", ("classifier.1",)),
    "MaxVit": Family("classification", ("classifier.5",)),
    "MobileNetV2": Family("classification", ("classifier.1",)),
    "MobileNetV3": Family("classification", ("classifier.3",)),
    "RegNet": Family("classification", ("fc",)),
    "ResNet": Family("classification", ("fc",)),
    "ShuffleNetV2": Family("classification", ("fc",)),
    "SqueezeNet": Family(
        "classification", ("classifier.1",), pools_after=True, drop_activation="classifier.2"
    ),
    "SwinTransformer": Family("classification", ("head",)),
    "VGG": Family("classification", ("classifier.6",)),
    "VisionTransformer": Family("classification", ("heads.head",)),
    # video
    "MViT": Family("video", ("head.1",)),
    "S3D": Family("video", ("classifier.1",), pools_after=True),
    "SwinTransformer3d": Family("video", ("head",)),
    "VideoResNet": Family("video", ("fc",)),
    # segmentation
    "DeepLabV3": Family("segmentation", ("classifier.4",), ("aux_classifier.4",)),
    "FCN": Family("segmentation", ("classifier.4",), ("aux_classifier.4",)),
    "LRASPP": Family("segmentation", ("classifier.high_classifier", "classifier.low_classifier")),
    # detection
    "FCOS": Family("detection", (_DENSE,)),
    "FasterRCNN": Family("detection", (_BOX,)),
    "KeypointRCNN": Family("detection", (_BOX,)),
    "MaskRCNN": Family("detection", (_BOX, _MASK)),
    "RetinaNet": Family("detection", (_DENSE,)),
    "SSD": Family("detection", (_DENSE,)),
}

# Families that have no head to replace, and why.
REFUSED: dict[str, str] = {
    "RAFT": "RAFT estimates optical flow, two numbers for each pixel; it has no class head. "
    "Pick a classification, video, segmentation or detection model.",
}


def family_of(model: nn.Module) -> tuple[str, Family] | None:
    """Look up the row of a torchvision model as `row_of` does, and refuse one that has no head."""
    for name in _torchvision_names(model):
        if name in REFUSED:
            raise HeadError(f"{type(model).__name__} has no head. {REFUSED[name]}")
    return row_of(model)


def row_of(model: nn.Module) -> tuple[str, Family] | None:
    """Look up the row of a torchvision model by its class or its base classes; None for foreign models."""
    return next(((name, FAMILIES[name]) for name in _torchvision_names(model) if name in FAMILIES), None)


def _torchvision_names(model: nn.Module) -> list[str]:
    return [cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith("torchvision.models.")]
