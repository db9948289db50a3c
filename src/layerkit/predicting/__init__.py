"""From a trained model and a picture to an answer, and to a file that answers elsewhere."""

from layerkit.predicting.answers import Prediction, Predictions
from layerkit.predicting.predictor import Predictor
from layerkit.predicting.reading import load_predictor

__all__ = ["Prediction", "Predictions", "Predictor", "load_predictor"]
