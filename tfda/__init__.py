"""tfda: unsupervised domain adaptation with TensorFlow and Keras.

run = tfda.train(tfda.Experiment(method='dann', source=..., target=...))
tfda.load(run).predict(['photo.jpg'])
"""

from tfda.version import __version__ as __version__


def __getattr__(name):
  # Imported when asked for: `tfda --help` need not wait for TensorFlow.
  if name in ('Experiment', 'train'):
    from tfda import experiment

    return getattr(experiment, name)
  if name == 'load':
    from tfda.serving import classifier

    return classifier.load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
