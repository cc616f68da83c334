"""Whether a model is right as often as it says: Guo et al. 2017."""

import numpy as np
from scipy import special

from tfda.evaluation import validators

_BINS = 15  # Section 4.
_TEMPERATURES = (0.05, 20.0)  # Between which it is looked for.


def expected_calibration_error(labels, logits, bins=_BINS):
  """Mean gap between confidence and accuracy, in [0, 1]: Eq. 3.

    ECE = sum_m |B_m| / n |accuracy(B_m) - confidence(B_m)|

  with B_m the images whose confidence, the greatest probability, is in ((m -
  1) / M, m / M]. For example three images predicted with probability 0.75, of
  which two are right, and one with 0.6, which is: 3/4 |2/3 - 0.75| + 1/4 |1 -
  0.6| = 0.1625.

  Args:
    labels: [N].
    logits: [N, C].
    bins: M.
  """
  counts, confidences, accuracies = reliability(labels, logits, bins)
  gaps = counts * np.abs(accuracies - confidences)
  return float(np.nansum(gaps) / len(labels))


def reliability(labels, logits, bins=_BINS):
  """What a reliability diagram shows (Section 2): three arrays [M].

  The numbers of images in the bins, their mean confidence and their accuracy,
  both NaN in a bin without images. For example the images above: two bins with
  images, of 1 and 3 images, confidence 0.6 and 0.75, accuracy 1 and 2/3.

  Args:
    labels: [N].
    logits: [N, C].
    bins: M.
  """
  probabilities = special.softmax(logits, axis=1)
  confidence = probabilities.max(axis=1)
  right = probabilities.argmax(axis=1) == labels
  chosen = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  counts = np.bincount(chosen, minlength=bins)
  means = [
    np.divide(
      np.bincount(chosen, values, minlength=bins),
      counts,
      out=np.full(bins, np.nan),
      where=counts > 0,
    )
    for values in (confidence, right)
  ]
  return (counts, *means)


def fit_temperature(labels, logits):
  """The T by which dividing the logits fits the labels best: Section 4.2.

    min_T mean -ln softmax(logits / T)_label

  For example logits (ln 9, 0), right for 3 images of 4: the probability should
  be 3/4, ln 9 / T = ln 3, T = 2.

  Args:
    labels: [N].
    logits: [N, C].

  Returns:
    T in [1/20, 20]; None where no image is misclassified: the more certain, the
    better, without end.
  """
  from scipy import optimize

  if np.all(logits.argmax(axis=1) == labels):
    return None

  def loss(log_temperature):
    scaled = logits / np.exp(log_temperature)
    return validators.cross_entropies(labels, scaled).mean()

  found = optimize.minimize_scalar(
    loss,
    bounds=np.log(_TEMPERATURES),
    method='bounded',
    options={'xatol': 1e-6},
  )
  return float(np.exp(found.x))


def measure(outputs):
  """The part of results.json that is about calibration.

  The temperature is of all source test images, on which the scaled figures of
  the source are then too: of one number from thousands of images, the optimism
  is small. Where they are the training images too (`transductive`), all figures
  of the source are of what the model has seen.

  Args:
    outputs: model_outputs.Outputs.

  Returns:
    'temperature'; 'source' and 'oracle_target' (None without labels), each with
    'error', the expected calibration error of 15 bins, and 'loss', the
    cross-entropy in nats, and, where there is a temperature, 'error_scaled' and
    'loss_scaled', of logits divided by it.
  """
  temperature = fit_temperature(
    outputs['source_labels'], outputs['source_logits'].astype(np.float64)
  )

  def of(side):
    if f'{side}_labels' not in outputs.arrays:
      return None
    labels = outputs[f'{side}_labels']
    logits = outputs[f'{side}_logits'].astype(np.float64)
    found = {}
    kinds = {'': logits}
    if temperature is not None:
      kinds['_scaled'] = logits / temperature
    for ending, scaled in kinds.items():
      found[f'error{ending}'] = expected_calibration_error(labels, scaled)
      loss = validators.cross_entropies(labels, scaled).mean()
      found[f'loss{ending}'] = float(loss)
    return found

  return {
    'temperature': temperature,
    'source': of('source'),
    'oracle_target': of('target'),
  }
