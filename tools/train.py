r"""Trains a method, or goes on with an interrupted run (the same command).

  python -m tools.train --flagfile=flags/mnist2mnist_m/dann.flags \
    --data_dir=PATH [--seed=1] [--run_dir=DIR] ...
"""

from tfda import flag_config


def main(arguments):
  from tfda import experiment, run_directory

  settings, config, _, words = flag_config.parse_experiment(arguments)
  flag_config.refuse(words)
  run = run_directory.RunDirectory(experiment.train(settings, config))
  results = run.read_results()
  for side, accuracy in results['accuracy'].items():
    shown = 'no labels' if accuracy is None else f'{accuracy:.2%}'
    print(f'{side} accuracy ({results[side]}): {shown}')
  print(f'results: {run.results}')
  print(f'TensorBoard: tensorboard --logdir {run.logs}')
  print(f'next: python -m tools.report {run.path}')
  print(f'      python -m tools.export --run_dir={run.path}')


def run():
  flag_config.run(main, __doc__, flag_config.experiment_parser)


if __name__ == '__main__':
  run()
