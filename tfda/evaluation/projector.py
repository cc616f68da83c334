"""The files of TensorBoard's projector: features to walk through."""

import math
import os

import numpy as np

from tfda import run_directory
from tfda.evaluation import figures, model_outputs

_SIDE = 48  # Pixels of an image of the sprite.
_SPRITE = 8192  # Pixels that a sprite may have across.


def write(arrays, class_names, logs):
  """Writes the features of both domains, with their classes and images.

  The features are those of model_outputs.reduce, which keeps the files small.

  Args:
    arrays: as in evaluation.npz.
    class_names: of the C classes.
    logs: the folder of TensorBoard's files.
  """
  import PIL.Image
  from google.protobuf import text_format
  from tensorboard.plugins import projector

  features, images = [], []
  lines = ['domain\tclass\tpredicted']
  names = [' '.join(name.split()) for name in class_names]
  reduced = model_outputs.reduce(
    arrays['source_features'], arrays['target_features']
  )
  for side, rows in zip(('source', 'target'), reduced):
    pictures = arrays[f'{side}_images']
    labels = arrays.get(f'{side}_labels')
    predictions = arrays[f'{side}_logits'].argmax(axis=1)
    features.append(rows[: len(pictures)])
    for image, i in zip(pictures, arrays[f'{side}_kept']):
      label = '' if labels is None else names[labels[i]]
      lines.append(f'{side}\t{label}\t{names[predictions[i]]}')
      images.append(figures.pillow(image).convert('RGB'))
  features = np.concatenate(features).astype('<f4')

  across = math.ceil(math.sqrt(len(images)))
  side = min(_SIDE, _SPRITE // across, max(images[0].size))
  sprite = PIL.Image.new('RGB', (across * side, across * side))
  for i, image in enumerate(images):
    place = (side * (i % across), side * (i // across))
    sprite.paste(image.resize((side, side)), place)
  sprite.save(os.path.join(logs, 'projector.png'))

  config = projector.ProjectorConfig()
  shown = config.embeddings.add()
  shown.tensor_name = 'features of both domains'
  shown.tensor_path = 'projector.bytes'
  shown.tensor_shape.extend(features.shape)
  shown.metadata_path = 'projector.tsv'
  shown.sprite.image_path = 'projector.png'
  shown.sprite.single_image_dim.extend([side, side])
  for name, content in {
    'projector.bytes': features.tobytes(),
    'projector.tsv': '\n'.join(lines) + '\n',
    'projector_config.pbtxt': text_format.MessageToString(config),
  }.items():
    run_directory.write(os.path.join(logs, name), content)
