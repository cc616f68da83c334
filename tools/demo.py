r"""Adapts a digit classifier from plain MNIST to digits over photographs.

  python -m tools.demo [--full] [--seed=1]

trains without adaptation and with DANN (with --full also on target labels, the
upper bound) on the packaged sample, compares them, writes a report and exports
the adapted classifier. An interrupted demo goes on with the same command.
"""

import dataclasses
import os

from tfda import errors, flag_config
from tfda.settings import setting

_PAIR = 'flags/mnist_sample2mnist_m_sample'


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the demo."""

  full: bool = setting(False, 'also train on the labelled target')
  seed: int = setting(0, 'seed of weights, order and noise')


def parser():
  return flag_config.Parser({'demo': ('', Settings)})


def main(arguments):
  from tfda import experiment, run_directory
  from tfda.evaluation import report
  from tfda.serving import export

  groups, words = parser().parse(arguments)
  flag_config.refuse(words)
  settings = groups['demo']
  if not os.path.isdir(_PAIR):
    raise errors.UsageError(
      f'{_PAIR}: no such folder; the demo runs from the root of a checkout'
    )
  names = ['source_only', 'dann_tuned']
  if settings.full:
    names.append('train_on_target')
  runs = []
  for name in names:
    flags = [f'--flagfile={_PAIR}/{name}.flags', f'--seed={settings.seed}']
    print(f'\npython -m tools.train {" ".join(flags)}', flush=True)
    trained, config, _, _ = flag_config.parse_experiment(flags)
    runs.append(experiment.train(trained, config))

  results = [run_directory.RunDirectory(run).read_results() for run in runs]
  adapted = runs[names.index('dann_tuned')]
  page = report.write(runs)
  exported = export.export(adapted)
  print()
  print(f'{"":18}{"source":>9}{"target":>9}{"seconds":>9}{"images/s":>10}')
  for name, result in zip(names, results):
    print(
      f'{name:18}{result["accuracy"]["source"]:9.2%}'
      f'{result["accuracy"]["target"]:9.2%}{result["seconds"]:9.0f}'
      f'{result["images_per_second"]:10.0f}'
    )
  print(f'\nreport       {page}')
  logs = os.path.commonpath(runs)
  print(f'TensorBoard  .venv/bin/tensorboard --logdir {logs}')
  print(f'SavedModel   {exported}')
  print(
    '\nOn your own images (class folders; a flat folder of unlabelled ones):\n'
    '  .venv/bin/python -m tools.train --flagfile=flags/base/folders.flags \\\n'
    '    --source=folder:LABELLED --target=folder:UNLABELLED'
  )


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
