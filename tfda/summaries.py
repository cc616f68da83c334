"""What TensorBoard is told of a run besides its figures and pictures."""

import re

# Of other machines; and what says nothing of how well a run does.
_UNTOLD = ('run_dir', 'data_dir', 'cache_dir', 'translation', 'stop_after')
_NUMBER = re.compile(r'-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?')
_SPEED = ('seconds', 'images_per_second')
_TITLES = {'accuracy': 'accuracies', 'loss': 'loss terms'}


def write_settings(flags):
  """Writes the row of a run in the HParams tab, by the default writer.

  Args:
    flags: the text of flags.txt.
  """
  from tensorboard.plugins.hparams import api

  api.hparams(settings_in(flags))


def settings_in(flags):
  """{name: number, truth or text} of the settings in flags.txt, less paths.

  For example '--seed=3' is 3.0, '--deterministic=False' False, '--method=dann'
  text.
  """
  found = {}
  for line in flags.splitlines():
    name, equals, value = line.lstrip('-').partition('=')
    if not line.startswith('--') or not equals or name in _UNTOLD:
      continue
    if value in ('True', 'False'):
      found[name] = value == 'True'
    else:
      number = _NUMBER.fullmatch(value)
      found[name] = float(value) if number else value
  return found


def write_end():
  """Writes that the run of the HParams tab is done."""
  import tensorflow as tf
  from tensorboard.plugins.hparams import api_pb2, summary

  end = summary.session_end_pb(api_pb2.STATUS_SUCCESS)
  tf.summary.experimental.write_raw_pb(end.SerializeToString(), step=0)


def write_layout(tags):
  """Writes the themes of the tab of custom scalars, by the default writer.

  Args:
    tags: of all scalars, as of `themes`.
  """
  import tensorflow as tf
  from tensorboard.plugins.custom_scalar import layout_pb2, summary

  layout = layout_pb2.Layout(
    category=[
      layout_pb2.Category(
        title=theme,
        chart=[
          layout_pb2.Chart(
            title=title,
            multiline=layout_pb2.MultilineChartContent(
              tag=[f'^{re.escape(tag)}$' for tag in shown]
            ),
          )
          for title, shown in charts.items()
        ],
      )
      for theme, charts in themes(tags).items()
    ]
  )
  written = summary.pb(layout)
  tf.summary.experimental.write_raw_pb(written.SerializeToString(), step=0)


def themes(tags):
  """{theme: {chart: tags}}: accuracies together, loss terms too, others alone.

  For example accuracy/source, accuracy/target, loss/label, learning_rate and
  seconds: accuracy {accuracies: both}, loss {loss terms: one}, schedules
  {learning_rate: itself}, speed {seconds: itself}.

  Args:
    tags: of scalars, with the theme before the slash.
  """
  found = {}
  for tag in tags:
    theme, slash, name = tag.partition('/')
    if not slash:
      theme, name = 'speed' if tag in _SPEED else 'schedules', tag
    chart = _TITLES.get(theme, name.replace('_', ' '))
    found.setdefault(theme, {}).setdefault(chart, []).append(tag)
  return found
