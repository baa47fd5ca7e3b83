"""The demonstration: both planes on a real MLflow server, and a story with five steps.

``python -m deploy.demo`` plays it and stays up; ``--once`` ends by itself. Rooms: `story` says what
happens, `probes` checks it, `models` trains, `traffic` asks all the time, `servers` owns the
processes, `calls` is what is printed and sent, `screen` is how it looks.
"""
