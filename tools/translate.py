r"""Trains a CycleGAN between two domains, and translates them into each other.

  python -m tools.translate --data_dir=PATH \
    --flagfile=flags/mnist2mnist_m/translation_small.flags [--run_dir=RUN] ...

The same command goes on with an interrupted run. All tools then know the
domains translated:RUN/source_to_target, with the labels of the source, and
translated:RUN/target_to_source.
"""

from tfda import flag_config


def main(arguments):
  from tfda import run_directory, translation

  settings, words = flag_config.parse_translation(arguments)
  flag_config.refuse(words)
  run = run_directory.RunDirectory(translation.train(settings))
  results = run.read_results()
  for name, accuracy in results['label_preservation'].items():
    shown = 'no labels' if accuracy is None else f'{accuracy:.2%}'
    print(f'accuracy of a classifier of the source on {name}: {shown}')
  for name, value in results['scores'].items():
    print(f'{name}: {value:.2f}')
  print(f'results: {run.results}')
  print(f'pairs: {run.pictures}')
  print(f'SavedModels: {run.export}')
  print(f'domains: translated:{run.path}/source_to_target')
  print(f'         translated:{run.path}/target_to_source')


def run():
  flag_config.run(main, __doc__, flag_config.translation_parser)


if __name__ == '__main__':
  run()
