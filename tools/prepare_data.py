r"""Makes data sets that the project ships.

  python -m tools.prepare_data --mnist=PATH/mnist.npz

draws the packaged sample of MNIST anew (tfda/data/mnist_sample.npz).
"""

import dataclasses

from tfda import errors, flag_config
from tfda.settings import setting


@dataclasses.dataclass(frozen=True)
class Settings:
  mnist: str = setting(None, "the file of tf.keras.datasets.mnist, 'mnist.npz'")
  out: str = setting('tfda/data/mnist_sample.npz', 'file to write')


def parser():
  return flag_config.Parser({'prepare_data': ('', Settings)})


def main(arguments):
  from tfda.data import prepare

  groups, words = parser().parse(arguments)
  flag_config.refuse(words)
  settings = groups['prepare_data']
  if not settings.mnist:
    raise errors.UsageError('--mnist=PATH/mnist.npz is needed')
  print(prepare.mnist_sample(settings.mnist, settings.out))


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
