r"""Trains over a grid or at random, and picks by a validator.

  python -m tools.sweep --flagfile=flags/... --trials=20 \
    --over=learning_rate=1e-3:1e-1:log \
    --over=backbone=dann_mnist,dann_mnist_domain_norm

Lists alone are a grid; a range is drawn from, --trials times: uniformly, with
:log behind it log-uniformly, with :int integers. Every setting of tools.train
can be gone over, seeds too. The trials run in parallel, each in a folder of
--run_dir (runs/<flag file>/sweep if not set); the same command goes on where it
was interrupted, and with more --trials adds some. No target label is read.
"""

import dataclasses
import os
from typing import Optional

from tfda import flag_config
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the tool, beside those of the experiment."""

  over: tuple[str, ...] = setting(
    (), 'NAME=a,b or NAME=LOW:HIGH[:log|:int]; several times for several'
  )
  trials: Optional[int] = setting(
    None, 'settings to draw at random; the whole grid if not set', minimum=1
  )
  sweep_seed: int = setting(
    0, 'seed of what is drawn', minimum=0, maximum=2**32 - 1
  )
  jobs: Optional[int] = setting(
    None, 'processes at a time; one a core if not set', minimum=1
  )

  def __post_init__(self):
    check(self)


def _beside():
  """Settings beside those of the experiment and the methods."""
  from tfda.evaluation import selection

  return {'choice': ('', selection.Choice), 'sweep': ('', Settings)}


def parser():
  return flag_config.experiment_parser(**_beside())


def main(arguments):
  from tfda import sweep
  from tfda.evaluation import selection

  groups, words = parser().parse(arguments)
  flag_config.refuse(words)
  settings, experiment = groups['sweep'], groups['experiment']
  folder = experiment.run_dir
  if not folder:
    run_dir = flag_config.with_run_dir(experiment, arguments).run_dir
    folder = os.path.join(os.path.dirname(run_dir), 'sweep')
  trials, texts = {}, {}
  for trial in sweep.trials(
    settings.over, settings.trials, settings.sweep_seed
  ):
    path = os.path.join(folder, sweep.name_of(trial))
    trials[path] = [f'--{name}={value}' for name, value in trial.items()]
    words = [*arguments, *trials[path], f'--run_dir={path}']
    one, config, _, _ = flag_config.parse_experiment(words, **_beside())
    texts[path] = flag_config.text(one, config)

  jobs = sweep.fitting(len(trials), settings.jobs)
  print(f'{len(trials)} trials, {jobs} at a time, in {folder}', flush=True)
  with sweep.interruptible():
    finished = sweep.train(texts, jobs, __package__)
  choice = groups['choice']
  ranked = selection.rank(finished, **dataclasses.asdict(choice))
  print(selection.table(choice.validator, ranked))
  print(f'the choice: {" ".join(trials[ranked[0].run_dir])}')


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
