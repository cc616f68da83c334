r"""Reproduces a published table, or one of the project's own.

  python -m tools.reproduce dann/table1 --data_dir=PATH [--dry_run] \
    [--seeds=3] [--parallel=2] [--backbone_weights=PATH]

Tables are flags/tables/<paper>/<table>.json. What is done already, in runs/ or
results/, is left alone; an interrupted run is gone on with, by the same command
after Ctrl-C or SIGTERM. Then results/<paper>/<table>.{json,md,png} have ours
(last step), what a validator chooses without target labels, the oracle, the
published figure and the difference. --dry_run lists the work and the data that
are missing, and where to get them; such rows are left out by name.
"""

from tfda import errors, flag_config


def parser():
  from tfda import reproduction

  return flag_config.Parser({'reproduce': ('', reproduction.Settings)})


def main(arguments):
  from tfda import published_tables, reproduction, sweep

  groups, words = parser().parse(arguments)
  if len(words) != 1:
    raise errors.UsageError(
      f'one table is needed; there are: {", ".join(published_tables.names())}'
    )
  with sweep.interruptible():
    reproduction.reproduce(words[0], groups['reproduce'], __package__)


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
