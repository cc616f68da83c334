"""tfda: unsupervised domain adaptation with TensorFlow and Keras.

run = tfda.train(tfda.Experiment(method='dann', source=..., target=...))
tfda.load(run).predict(['photo.jpg'])
"""

from tfda.experiment import Experiment as Experiment
from tfda.experiment import train as train
from tfda.serving.classifier import load as load
from tfda.version import __version__ as __version__
