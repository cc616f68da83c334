"""Makes data sets, and checks and counts those that are there."""

import functools
import hashlib
import json
import os
from typing import NamedTuple, Optional

import numpy as np

from tfda import errors
from tfda.data import (
  catalogue,
  files,
  generate,
  syn_numbers,
  syn_signs,
)

_SAMPLES = {'train': 8000, 'test': 2000}
_SEED = 2015


def mnist_sample(mnist, out):
  """Draws 8,000 training and 2,000 test digits, at random, no two the same.

  Args:
    mnist: path of the file of tf.keras.datasets.mnist.
    out: the .npz file to write: {train,test}_{images,labels}, uint8.

  Returns:
    A line that says what was written.
  """
  from tfda.data import layouts

  if not os.path.isfile(mnist):
    raise errors.UsageError(f'--mnist={mnist}: no such file')
  random = np.random.default_rng(_SEED)
  arrays = {}
  for split, count in _SAMPLES.items():
    digits, labels = layouts.npz(mnist, f'x_{split}', f'y_{split}')
    with layouts.refusing(mnist):
      chosen = random.choice(len(labels), count, replace=False)
      arrays[f'{split}_images'] = digits[chosen]
      arrays[f'{split}_labels'] = labels[chosen]
  np.savez_compressed(out, **arrays)
  return f'{out}: {sum(_SAMPLES.values())} digits, {os.path.getsize(out)} bytes'


def synthetic(
  name, out, count=None, test_count=None, seed=0, form='tfrecord',
  font_dir=None, processes=None,
):  # fmt: skip
  """Draws SYN NUMBERS or SYN SIGNS; see `generate` for the files.

  Args:
    name: 'syn_numbers' or 'syn_signs'.
    out: folder of data sets.
    count: training images; as many as are published if None.
    test_count: test images; a tenth of `count` if None, and as many as are
      published if both are.
    seed: of all that is drawn, at least 0.
    form: one of generate.FORMATS.
    font_dir: for syn_numbers, a folder of fonts besides matplotlib's.
    processes: how many draw; one a core if None.

  Returns:
    A line that says what was written.
  """
  module = {'syn_numbers': syn_numbers, 'syn_signs': syn_signs}[name]
  counts = dict(module.COUNTS)
  if count:
    counts = {'train': count, 'test': max(1, count // 10)}
  if test_count:
    counts['test'] = test_count
  draw, about = module.draw, {}
  if module is syn_numbers:
    fonts = syn_numbers.find_fonts(font_dir)
    draw = functools.partial(draw, fonts=fonts)
    about['fonts'] = [os.path.basename(font) for font in fonts]
  elif font_dir:
    raise errors.UsageError(f'--font_dir={font_dir}: {name} has no fonts')
  processes = processes or os.cpu_count()
  path = generate.write(
    out, name, draw, module.FOLDERS, counts, seed, form, processes, **about
  )
  shown = ' and '.join(f'{n:,} {split}' for split, n in counts.items())
  return f'{path}: {shown} images'


def mnist_m(data_dir, out, reading):
  """Stores mnist_m as it is released, so that it need not be blended again.

  Args:
    data_dir: folder with mnist.npz and BSDS500.
    out: folder of data sets to write mnist_m/ to.
    reading: a files.Reading, for the photographs.

  Returns:
    A line that says what was written, and what was left out.
  """
  import tqdm
  from PIL import Image

  from tfda.data import domains

  with generate.whole_folder(out, 'mnist_m') as folder:
    counts, skipped = [], []
    for split in files.SPLITS:
      domain = domains.load('mnist_m', split, 28, data_dir, reading)
      skipped += domain.skipped
      images = os.path.join(folder, f'mnist_m_{split}')
      os.mkdir(images)
      with open(f'{images}_labels.txt', 'w') as labels:
        for i, label in enumerate(
          tqdm.tqdm(domain.labels, f'mnist_m {split}', disable=None)
        ):
          name = f'{i:08}.png'
          Image.fromarray(domain.images[i]).save(os.path.join(images, name))
          labels.write(f'{name} {label}\n')
      counts.append(f'{len(domain.labels):,} {split}')
  left_out = [f'{files.shown(name)} ({reason})' for name, reason in skipped]
  return f'{os.path.join(out, "mnist_m")}: {" and ".join(counts)} images' + (
    f'; photographs left out: {", ".join(left_out)}' if left_out else ''
  )


def check(loaded, data_dir):
  """Yields lines: counts and checksums, beside those that are published.

  Args:
    loaded: {split: Domain} of one name.
    data_dir: --data_dir, or None.
  """
  name = loaded['train'].name
  data_set = catalogue.of(name)
  found = tuple(len(loaded[split].images) for split in files.SPLITS)
  published = catalogue.published(name)
  if found in published:
    yield f'{name}: {_pair(found)}, as expected'
  elif found == _made(name, data_dir):
    yield f'{name}: {_pair(found)}, as made'
  elif published:
    expected = ' or '.join(_pair(form) for form in published)
    yield f'warning: {name}: {_pair(found)}; expected are {expected}'
  else:
    yield f'{name}: {_pair(found)}'
  # Without a split both are the same images.
  skipped = {s for split in files.SPLITS for s in loaded[split].skipped}
  for path, reason in sorted(skipped):
    yield f'warning: {path} is left out: {reason}'
  if data_set is None or not data_dir:
    return
  for file, (algorithm, digest) in data_set.checksums.items():
    path = os.path.join(data_dir, file)
    if not os.path.isfile(path):
      continue
    if _digest(path, algorithm) == digest:
      yield f'{path}: its {algorithm} is the published one'
    else:
      yield (
        f'warning: {path}: its {algorithm} is not the published one, {digest}: '
        'it is damaged, or was stored anew'
      )


def _made(name, data_dir):
  """Returns the counts of a set that generate.write made, or None."""
  from tfda.data import layouts

  path = os.path.join(data_dir or '', name, 'made.json')
  if not os.path.isfile(path):
    return None
  with layouts.refusing(path), open(path) as file:
    counts = json.load(file)['counts']
    return tuple(counts[split] for split in files.SPLITS)


def _pair(counts):
  return ' and '.join(f'{n:,} {s}' for n, s in zip(counts, files.SPLITS))


def _digest(path, algorithm):
  digest = hashlib.new(algorithm)
  with open(path, 'rb') as file:
    for block in iter(lambda: file.read(1 << 20), b''):
      digest.update(block)
  return digest.hexdigest()


class ClassCount(NamedTuple):
  """Training images of a class; `target` is None without labels."""

  name: str
  source: int
  target: Optional[int]
  remark: str


def class_counts(source, target):
  """Counts the images of each class in both domains.

  The remark says where adaptation may be misled: a class that one domain lacks,
  or one whose share of the images is more than double in one domain. For
  example 50 of 100 source and 10 of 100 target images: 'share / 5.0 in target'.

  Args:
    source, target: Domains, the first of them labelled.

  Returns:
    A list of ClassCount, the source's classes first.
  """
  names = list(source.class_names)
  names += [name for name in target.class_names if name not in names]
  counts = [_counted(domain, names) for domain in (source, target)]
  if counts[1] is None:
    return [
      ClassCount(name, int(count), None, '')
      for name, count in zip(names, counts[0])
    ]
  shares = [count / max(1, count.sum()) for count in counts]
  return [
    ClassCount(name, int(here), int(there), _remark(here, there, *ratio))
    for name, here, there, *ratio in zip(names, *counts, *shares)
  ]


def _counted(domain, names):
  if domain.labels is None:
    return None
  position = [names.index(name) for name in domain.class_names]
  return np.bincount(np.take(position, domain.labels), minlength=len(names))


def _remark(source, target, source_share, target_share):
  if not source or not target:
    return f'none in {"source" if not source else "target"}'
  if target_share > 2 * source_share:
    return f'share x {target_share / source_share:.1f} in target'
  if source_share > 2 * target_share:
    return f'share / {source_share / target_share:.1f} in target'
  return ''


def table(rows):
  """Returns a table of ClassCounts as text."""
  cells = [('class', 'source', 'target', '')]
  for row in rows:
    target = '-' if row.target is None else f'{row.target:,}'
    cells.append((row.name, f'{row.source:,}', target, row.remark))
  widths = [max(len(cell) for cell in column) for column in zip(*cells)]
  return '\n'.join(
    f'{name:{widths[0]}}  {source:>{widths[1]}}  {target:>{widths[2]}}  '
    f'{remark}'.rstrip()
    for name, source, target, remark in cells
  )


def spread(domain):
  """Returns a line about the rarest and the most frequent class."""
  if domain.labels is None:
    return f'{domain.name}: no labels'
  counts = np.bincount(domain.labels, minlength=len(domain.class_names))
  ratio = counts.max() / max(1, counts.min())
  return (
    f'{domain.name}: {counts.min():,} to {counts.max():,} training images a '
    f'class (1 : {ratio:.1f})'
  )
