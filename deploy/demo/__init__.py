"""The demonstration: both planes on a real MLflow server, and a story with five steps.

``python -m deploy.demo`` plays it and stays up; ``--once`` ends by itself. `story` has the steps,
`probes` checks them, `models` trains, `traffic` sends requests all the time, `servers` owns the
processes, `calls` prints and sends requests, `screen` prints everything else.
"""
