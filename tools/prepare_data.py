r"""Makes data sets, and shows what is in those of an experiment.

  python -m tools.prepare_data --list
  python -m tools.prepare_data --make=syn_numbers --out=DATA [--count=N]
  python -m tools.prepare_data --source=NAME --target=NAME --data_dir=DATA

--list tells where each data set is to be had, and where its files are expected.

--make draws SYN NUMBERS or SYN SIGNS, blends MNIST-M from the mnist.npz and the
BSDS500 photographs in --data_dir, or draws the packaged sample of MNIST anew
from --mnist=PATH/mnist.npz.

--source and --target check both domains against what is published, count their
classes, and write a page with images of each.
"""

import dataclasses
from typing import Optional

from tfda import errors, flag_config
from tfda.settings import check, setting

_SYNTHETIC = ('syn_numbers', 'syn_signs')
_SAMPLE = 'tfda/data/mnist_sample.npz'


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the tool."""

  list: bool = setting(False, 'where the data sets are to be had')
  make: Optional[str] = setting(
    None, 'data set to make', choices=(*_SYNTHETIC, 'mnist_m', 'mnist_sample')
  )
  count: Optional[int] = setting(
    None, 'training images to draw; the published number if not set', minimum=1
  )
  test_count: Optional[int] = setting(
    None, 'test images to draw; a tenth of --count if not set', minimum=1
  )
  seed: int = setting(0, 'seed of what is drawn', minimum=0)
  format: str = setting(
    'tfrecord', 'of what is drawn', choices=('tfrecord', 'png')
  )
  font_dir: Optional[str] = setting(
    None, "fonts for syn_numbers besides matplotlib's: .ttf and .otf files"
  )
  processes: Optional[int] = setting(
    None, 'processes that draw; one a core if not set', minimum=1
  )
  mnist: Optional[str] = setting(
    None, "the file of tf.keras.datasets.mnist, 'mnist.npz', of the sample"
  )
  source: Optional[str] = setting(None, 'labelled domain to show')
  target: Optional[str] = setting(None, 'domain to show beside it')
  data_dir: Optional[str] = setting(None, 'folder of downloaded data sets')
  cache_dir: Optional[str] = setting(
    None, "folder of the caches of decoded images; the user's if not set"
  )
  image_size: int = setting(
    64, 'side in pixels of the images shown', minimum=8, maximum=512
  )
  out: Optional[str] = setting(
    None,
    'folder of data sets that --make writes to, --data_dir if not set; or the '
    f'page to write, domains.html if not set; or the sample, {_SAMPLE} if not '
    'set',
  )

  def __post_init__(self):
    check(self)


def parser():
  return flag_config.Parser({'prepare_data': ('', Settings)})


def main(arguments):
  groups, words = parser().parse(arguments)
  flag_config.refuse(words)
  settings = groups['prepare_data']
  # The sample was once all that this tool made: --mnist alone still does.
  make = settings.make or ('mnist_sample' if settings.mnist else None)
  wanted = [settings.list, make, settings.source or settings.target]
  if sum(map(bool, wanted)) != 1:
    raise errors.UsageError(
      'one of --list, --make=NAME, and --source=NAME --target=NAME is needed'
    )
  if settings.list:
    from tfda.data import catalogue

    print(catalogue.text())
  elif make:
    _make(make, settings)
  else:
    _show(settings)


def _make(make, settings):
  from tfda.data import prepare

  if make == 'mnist_sample':
    if not settings.mnist:
      raise errors.UsageError('--mnist=PATH/mnist.npz is needed')
    print(prepare.mnist_sample(settings.mnist, settings.out or _SAMPLE))
    return
  out = settings.out or settings.data_dir
  if not out:
    raise errors.UsageError(f'--out=DIR is needed, for DIR/{make}')
  if make == 'mnist_m':
    print(prepare.mnist_m(settings.data_dir, out, _reading(settings)))
    return
  print(
    prepare.synthetic(
      make,
      out,
      settings.count,
      settings.test_count,
      settings.seed,
      settings.format,
      settings.font_dir,
      settings.processes,
    )
  )


def _reading(settings):
  from tfda.data import files

  # One bad image need not hide what else there is: they are told.
  return files.Reading(settings.cache_dir, on_bad_image='skip')


def _show(settings):
  from tfda.data import domains, prepare
  from tfda.evaluation import data_page

  names = settings.source, settings.target
  if not all(names):
    raise errors.UsageError('--source=NAME and --target=NAME are needed')
  reading = _reading(settings)
  loaded = [
    {
      split: domains.load(
        name, split, settings.image_size, settings.data_dir, reading
      )
      for split in domains.SPLITS
    }
    for name in names
  ]
  source, target = (domain['train'] for domain in loaded)
  domains.check_classes(source, source)  # It has labels.
  checks = [
    line for d in loaded for line in prepare.check(d, settings.data_dir)
  ]
  checks += [prepare.spread(domain) for domain in (source, target)]
  rows = prepare.class_counts(source, target)
  out = settings.out or 'domains.html'
  print('\n'.join(checks), prepare.table(rows), sep='\n\n', end='\n\n')
  data_page.write(source, target, rows, checks, out)
  print(out)


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
