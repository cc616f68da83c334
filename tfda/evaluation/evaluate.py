"""Accuracies and label-free validators of a model on both domains."""

import numpy as np
import tensorflow as tf

from tfda.data import augmentation
from tfda.evaluation import (
  calibration,
  distances,
  model_outputs,
  validators,
)

# Images at a time: so many, or fewer of a size at which they would take more
# memory than 64 of 224 x 224.
_BATCH = 500
_BATCH_PIXELS = 64 * 224 * 224
_KEPT = 1000  # Images of each domain whose features are kept.
# Of these, images kept themselves: small, and as many as fit.
_IMAGE_SIDE = 96
_IMAGE_BYTES = 4 << 20
# Validators of every evaluation: the cheap ones, but for the accuracy, which is
# there by its own name.
WATCHED = tuple(
  name
  for name, validator in validators.VALIDATORS.items()
  if validator.cheap and name != 'source_accuracy'
)


def predict(model, domain, side='target', kept=None):
  """Returns (logits [N, C], features [M, D]) of a domain, float32 arrays.

  The whole set is run in batches of a fixed size, so one trace serves all sets.

  Args:
    model: a ClassificationModel.
    domain: a Domain; of images larger than the network's the centre counts.
    side: 'source' or 'target', for models with statistics of each domain.
    kept: the numbers [M] of the images whose features are returned, which can
      be much larger than the logits; None for all.
  """
  inputs = domain.inputs()
  size = model.backbone.image_size
  is_stored = model.backbone.is_stored(inputs)
  count = min(_BATCH, max(1, _BATCH_PIXELS // size**2))
  kept = np.arange(len(inputs)) if kept is None else kept
  place = np.full(len(inputs), -1)
  place[kept] = np.arange(len(kept))
  logits, features = [], None
  for start in range(0, len(inputs), count):
    batch = inputs[start : start + count]
    if not is_stored:
      batch = augmentation.centre_crop(batch, size)
    padding = [(0, count - len(batch))] + [(0, 0)] * (batch.ndim - 1)
    outputs = model.infer(tf.constant(np.pad(batch, padding)), domain=side)
    logits.append(outputs['logits'].numpy()[: len(batch)])
    if features is None:
      width = outputs['features'].shape[-1]
      features = np.empty([len(kept), width], np.float32)
    places = place[start : start + count]
    is_kept = places >= 0
    found = outputs['features'].numpy()[: len(batch)]
    features[places[is_kept]] = found[is_kept]
  return np.concatenate(logits), features


def accuracy(model, domain, side='target'):
  """Accuracy in [0, 1] of a model on a labelled domain."""
  logits, _ = predict(model, domain, side, kept=np.arange(0))
  return float(np.mean(logits.argmax(axis=-1) == domain.labels))


def per_class_accuracy(labels, predictions, class_names):
  """{class name: accuracy in [0, 1], None for a class without images}."""
  return {
    name: (
      float(np.mean(predictions[labels == i] == i))
      if np.any(labels == i)
      else None
    )
    for i, name in enumerate(class_names)
  }


def outputs(model, data):
  """What a model makes of the test images of both domains.

  Args:
    model: an AdaptationModel.
    data: {(side, split): Domain}.

  Returns:
    model_outputs.Outputs; its arrays are those of `evaluate` but the images.
  """
  arrays = {}
  for side in ('source', 'target'):
    domain = data[side, 'test']
    kept = np.random.default_rng(0).permutation(len(domain.images))[:_KEPT]
    logits, features = predict(model, domain, side, kept)
    arrays[f'{side}_logits'] = logits
    arrays[f'{side}_kept'] = kept
    arrays[f'{side}_features'] = features
    if domain.labels is not None:
      arrays[f'{side}_labels'] = domain.labels
    domain_logits = model.domain_logits(
      tf.constant(features), tf.constant(logits[kept])
    )
    if domain_logits is not None:
      arrays[f'{side}_domain_logits'] = domain_logits.numpy()
  return model_outputs.Outputs(arrays)


def evaluate(model, data, path):
  """Evaluates on the test splits and keeps logits and features.

  Args:
    model: an AdaptationModel.
    data: {(side, split): Domain}.
    path: the .npz file to write. For each side: '_logits' [N, C] and '_labels'
      [N] (where there are any) of all test images; '_kept' [M] indices of up to
      1,000 of them, at random, with their '_features' [M, D] and, of a method
      that has a domain classifier, its '_domain_logits' [M]; '_images' of the
      first of those, as many as `small_images` returns.

  Returns:
    The part of results.json that is about what the model does.
  """
  found = outputs(model, data)
  accuracies, per_class, images = {}, {}, {}
  class_names = data['source', 'train'].class_names
  for side in ('source', 'target'):
    domain = data[side, 'test']
    images[f'{side}_images'] = small_images(
      domain.images, found[f'{side}_kept']
    )
    accuracies[side] = found.accuracy(side)
    per_class[side] = None
    if domain.labels is not None:
      per_class[side] = per_class_accuracy(
        domain.labels, found[f'{side}_logits'].argmax(axis=-1), class_names
      )
  np.savez_compressed(path, **found.arrays, **images)
  return {
    'accuracy': accuracies,
    'per_class_accuracy': per_class,
    'validators': validators.measure(found),
    'distances': distances.measure(found, class_names),
    'calibration': calibration.measure(found),
    **counts(data),
  }


def small_images(images, kept):
  """The first images for the report, no larger than 96 pixels and 4 MiB.

  Args:
    images: uint8 [N, H, W, 3], as domains have them.
    kept: the numbers [M] of those of interest.

  Returns:
    uint8 [n, h, w, 3], n at most M.
  """
  height, width, channels = images.shape[1:]
  scale = min(1.0, _IMAGE_SIDE / max(height, width))
  size = [max(1, round(scale * x)) for x in (height, width)]
  chosen = kept[: max(1, _IMAGE_BYTES // (size[0] * size[1] * channels))]
  if scale == 1.0:
    return images[chosen]
  small = [
    tf.image.resize(image[np.newaxis], size, method='area').numpy()
    for image in images[chosen]
  ]
  return np.rint(np.concatenate(small)).astype(np.uint8)


def counts(data):
  """How many images there are, and where train and test are the same ones.

  Args:
    data: {(side, split): Domain}.

  Returns:
    The part of results.json that is about images.
  """
  return {
    'images': {
      f'{side}_{split}': len(domain.images)
      for (side, split), domain in data.items()
    },
    'transductive': {
      side: data[side, 'test'].transductive for side in ('source', 'target')
    },
  }
