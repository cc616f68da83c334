"""tfda: unsupervised domain adaptation with TensorFlow and Keras."""

from tfda.version import __version__ as __version__
