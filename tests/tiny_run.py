"""One short run, trained once, that tests of what comes after share."""

from tfda import experiment
from tfda.serving import export

STEPS = 3
SIZE = 16
_trained, _exported = [], []


def path(tmp_path_factory):
  """The run directory of three steps of DANN; not to be written to."""
  if not _trained:
    run_dir = str(tmp_path_factory.mktemp('trained') / 'run')
    _trained.append(
      experiment.train(
        experiment.Experiment(
          method='dann',
          source='optdigits',
          target='optdigits_m',
          image_size=SIZE,
          steps=STEPS,
          batch_size=4,
          checkpoint_every=2,
          evaluate_every=3,
          log_every=1,
          run_dir=run_dir,
        )
      )
    )
  return _trained[0]


def exported(tmp_path_factory):
  """The folder of versions, one, of that run; not to be written to."""
  if not _exported:
    out = tmp_path_factory.mktemp('exported') / 'parts'
    export.export(path(tmp_path_factory), out)
    _exported.append(str(out))
  return _exported[0]


def call(tool, monkeypatch, *words):
  """Runs a tool in this process as from a command line; its exit code."""
  monkeypatch.setattr('sys.argv', ['tool', *map(str, words)])
  try:
    tool.run()
  except SystemExit as stopped:
    return stopped.code
  return 0
