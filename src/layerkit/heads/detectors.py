"""The predictors of torchvision's detectors: several layers and a count of classes that change together."""

from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.fcos import FCOSClassificationHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetClassificationHead
from torchvision.models.detection.ssd import SSDClassificationHead
from torchvision.models.detection.ssdlite import SSDLiteClassificationHead


def predictor_features(predictor: nn.Module) -> tuple[int, int] | None:
    """Return how many features enter a predictor, and its number of classes; None for foreign modules."""
    match predictor:
        case FastRCNNPredictor():
            return predictor.cls_score.in_features, predictor.cls_score.out_features
        case MaskRCNNPredictor():
            return predictor.conv5_mask.in_channels, predictor.mask_fcn_logits.out_channels
        case RetinaNetClassificationHead() | FCOSClassificationHead():
            return predictor.cls_logits.in_channels, predictor.num_classes
        case SSDClassificationHead() | SSDLiteClassificationHead():
            return _last_convolutions(predictor)[0].in_channels, predictor.num_columns
    return None


def new_predictor(predictor: nn.Module, num_classes: int) -> nn.Module:
    """Build torchvision's predictor of another number of classes, the background included.

    torchvision's own constructors start it: a mask predictor that starts at zero never learns, and the biases
    of RetinaNet and FCOS hold the prior that keeps the first losses finite.
    The layers of a one-stage head that know nothing of classes are shared with the old one, since they
    hold what was learned.
    """
    new: nn.Module
    match predictor:
        case FastRCNNPredictor():
            return FastRCNNPredictor(predictor.cls_score.in_features, num_classes)  # type: ignore[no-any-return]
        case MaskRCNNPredictor():
            deconv = predictor.conv5_mask
            return MaskRCNNPredictor(deconv.in_channels, deconv.out_channels, num_classes)  # type: ignore[no-any-return]
        case RetinaNetClassificationHead() | FCOSClassificationHead():
            channels = predictor.cls_logits.in_channels
            new = type(predictor)(channels, predictor.num_anchors, num_classes)
            new.conv = predictor.conv
            return new
        case SSDClassificationHead():
            return SSDClassificationHead(*_channels_and_anchors(predictor), num_classes)  # type: ignore[no-any-return]
    channels_and_anchors = _channels_and_anchors(predictor)
    new = SSDLiteClassificationHead(*channels_and_anchors, num_classes, norm_layer=nn.BatchNorm2d)
    for block, old_block in zip(new.module_list, predictor.module_list, strict=True):  # type: ignore[arg-type]
        block[0] = old_block[0]
    return new


def _channels_and_anchors(predictor: nn.Module) -> tuple[list[int], list[int]]:
    convolutions = _last_convolutions(predictor)
    columns: int = predictor.num_columns  # type: ignore[assignment]
    return (
        [convolution.in_channels for convolution in convolutions],
        [convolution.out_channels // columns for convolution in convolutions],
    )


def _last_convolutions(predictor: nn.Module) -> list[nn.Conv2d]:
    # An SSD level is one convolution, an SSDlite level a depthwise one and a 1x1 one.
    levels: nn.ModuleList = predictor.module_list  # type: ignore[assignment]
    return [[m for m in level.modules() if isinstance(m, nn.Conv2d)][-1] for level in levels]
