"""Semi-supervised adaptation: labelled target images join the label loss."""

from tfda import adaptation, errors, losses


def extended(method):
  """A method's class with a label loss of target images added.

  The source's and the target's label losses count alike, as if half of the
  label predictor's batch came from each (Ganin & Lempitsky 2015, Section 4.1,
  "the label predictor is now exposed to the target data").

  Args:
    method: a subclass of AdaptationModel.

  Returns:
    Another class; `method` where it reads these images as it is.

  Raises:
    UsageError: it trains in phases of its own.
  """
  if method.phases is not adaptation.AdaptationModel.phases:
    raise errors.UsageError(
      f'--target_labelled: {method.__module__.split(".")[-1]} trains in phases '
      'of its own, none of which has a loss of labelled target images; take '
      'another --method'
    )
  if 'labelled_target' in method.STREAMS:
    return method

  class SemiSupervised(method):
    """`method`, which also reads the stream 'labelled_target'."""

    STREAMS = (*method.STREAMS, 'labelled_target')
    LOSS_TERMS = (*method.LOSS_TERMS, 'target_label')

    def objective(self, batch, progress):
      total, terms = super().objective(batch, progress)
      revealed = batch['labelled_target']
      features = self.features(revealed['image'], training=True)
      logits = self.classifier(features, noise=self.noise(batch), training=True)
      label = losses.label_loss(revealed['label'], logits)
      return total + label, {**terms, 'target_label': label}

  SemiSupervised.__name__ = SemiSupervised.__qualname__ = method.__name__
  return SemiSupervised
