"""How much each test does: reduced by default, in full with ``REGISTRY_GATEWAY_SOAK=1``."""

import os

SOAK = os.environ.get("REGISTRY_GATEWAY_SOAK", "") not in {"", "0"}

# A node.
WITHOUT = "" if SOAK else "torch"
"""What is not installed, as far as a gateway can see that is not to serve it: two seconds of a core
for each start."""
CONTROL_WITHOUT = "" if SOAK else "pandas"
"""As `WITHOUT`, for the control plane and the command, which need none: MLflow's client imports it
where it is."""
WITH_TORCH = {"ACCEPTANCE_WITHOUT": ""}
"""What a gateway is started with that is."""
POLL_INTERVAL_S = "1"
"""How often a control plane lists the registry: each listing takes 25 ms of a core, most of them in
the registry's server."""

# Callers.
PAUSE_S = 0.002 if SOAK else 0.15
"""Between two requests of a caller: two slow cores also have the product to run."""

# Promotions under traffic. The counts of the contract are met by default too.
PROMOTION_ROUND_TRIPS = 25 if SOAK else 2
"""How often the alias goes 1 → 2 → 1."""
PROMOTION_CALLERS = 8
ANSWERS_BETWEEN_PROMOTIONS = 200 if SOAK else 25
"""Answers by alias that are waited for before the alias moves again."""

# The bounded resident set.
RESIDENT_MODELS = 20
RESIDENT_LIMIT = 5
RESIDENT_EVICTIONS = 1000
"""More evictions than this are waited for."""
RESIDENT_CALLERS = 6
RESIDENT_PROMOTIONS = 60

# Models in use beside others.
ZIPF_MODELS = 1000
ZIPF_SLOTS = (8, 32, 128)
ZIPF_CALLS = 2000
SCANNED_MODELS = 200
"""Beside hot ones."""
SCANNED_LOAD_S = 2.0

# A cold model.
COLD_CALLERS = 100
COLD_ROUNDS = 10 if SOAK else 1

# What is proved of a model.
SLOW_CALL_S = 10.0 if SOAK else 4.5
SLOW_BUDGET_S = 30.0 if SOAK else 25.0
"""How long a slow model takes, and the load budget: fourteen of these calls are more than that."""
PROVED_EVICTIONS = 100 if SOAK else 2
THRESHOLD_CALLERS = 64
THRESHOLD_REQUESTS = 1500 if SOAK else 300

# A candidate that fails on live traffic.
CANDIDATE_CALLERS = 4
CANDIDATE_PASSES = 20 if SOAK else 2
"""Listings after which it has still not been put back."""

# kill -9.
KILLS = ((10, 2), (1, 20)) if SOAK else ((1, 2),)
"""Of how many versions, and how often each. From the third death of one in a short time on, callers
wait out a pause before the next worker."""
FORKSERVER_KILLS = 10 if SOAK else 1
KILL_CALLERS = 8
ANSWERS_BETWEEN_KILLS = 30

# Hints.
HINTED_PROMOTIONS = 15 if SOAK else 2
HINT_LIMIT_S = 2.0 if SOAK else 20.0
"""Median from the alias's move to the first answer; the contract's figure on a machine that is
busy with nothing else."""
POLLED_PROMOTIONS = 3
POLL_S = 30.0
LOAD_LIMIT_S = 5.0 if SOAK else 20.0
REPEATED_DELIVERIES = 10_000 if SOAK else 400
"""Over TCP, to the real process; the unit tests send 10,000 in any case."""

# Restarts in the middle.
MIDDLE_ROUNDS = 5 if SOAK else 1

# Damaged files.
DAMAGE_ROUNDS = 8 if SOAK else 1
"""Restarts; in each, every file of a node is damaged. Of what is kept twice it is
the first one in one half of them, and the second in the other. The kinds of damage go round."""

# An upload in progress.
UPLOAD_FILES = 40
UPLOAD_S = 20.0
"""How long the upload takes, watched by a poll every second."""

# Versions made anew.
ANEW_LEDGERS = ("sqlite", "postgresql") if SOAK else ("postgresql",)
"""The contract tests of the ledger run on both in any case."""

# Neighbours that are gone.
OUTAGE_S = 60.0 if SOAK else 2.0

# The control plane is killed.
SWAP_KILLS = 50 if SOAK else 1

# Connections that idle, dribble, and hang up.
CONNECTIONS_IDLE = 5000 if SOAK else 200
CONNECTIONS_BUSY = 200 if SOAK else 10
CONNECTIONS_SLOW = 900 if SOAK else 100
"""Every other one with its body: more than there are places for."""
PLACES = 400 if SOAK else 40
"""More than busy and rude ones take, fewer than bodies arrive at a time."""
CONNECTIONS_RUDE = 10 if SOAK else 3
CONNECTED_S = 60.0 if SOAK else 2.0

# Callers who cost more than they bring, beside others.
RUDE_S = 5.0 if SOAK else 0.5
RUDE_ROUNDS, RUDE_MOST_ROUNDS = (5, 5) if SOAK else (1, 5)
"""Each measures others without the attack, and then beside it; the median of all of them counts. A
short run goes on where that of the first ones is over the limit."""
RUDE_AT_MOST_TIMES = 2.0 if SOAK else 10.0
"""How much longer others wait for an answer, in the median; the contract's figure on a machine that
is busy with nothing else."""
RUDE_LOOK_LIMIT_S = 5.0 if SOAK else 20.0
"""The longest that anybody waits for the answer that the gateway is alive."""
BESIDE_CALLERS = 4
BEGUN_LIMIT_S = 60.0

# The end under full load.
END_CALLERS = 200 if SOAK else 48
END_PREDICT_S = 0.5 if SOAK else 0.15
GONE_WITHIN_S = 2.0 if SOAK else 20.0
READ_WITHIN_S = 0.2 if SOAK else 2.0
"""After which a request that was sent on an open connection has been read, and is accepted."""

# Loads beside steady traffic.
FOREST_TREES = 21
"""Of 14.4 MB each."""
TEXT_TERMS = 2_000_000
TORCH_WIDTH = 2048
LOADED_BESIDE = ("forest", "text", "torch")
"""In a thread the text pipeline is the one that is felt most."""
DISTURBED_ROUNDS = 5
DISTURBED_QUIET_S = 5.0
DISTURBED_AT_MOST_TIMES = 2.0
DISTURBED_AT_MOST_S = 0.005
"""How much worse the 99th percentile may be: the contract's figures on a machine that is busy with
nothing else."""

# Loads and unloads without end.
CYCLES = 200 if SOAK else 4
CYCLES_BEFORE = 30 if SOAK else 3
"""Until everything that is made once has been made."""

# Restarts without the registry.
RESTARTS = 9 if SOAK else 1
SERVES_WITHIN_S = 5.0 if SOAK else 60.0
"""From the start of the processes to the first prediction, in the median; the contract's figure on
a machine that is busy with nothing else."""

# Workers that lie.
LIES = 5000 if SOAK else 150
"""What workers say that no worker of ours does, each to a resident set of its own."""
LIES_TO_A_GATEWAY = 2000 if SOAK else 12
"""The same, to a gateway that runs, by processes."""

# Calls into the system that fail.
FAILING_CALLS = None if SOAK else 3
"""How many kinds of them are tried: all, or one of processes, one of files and one of `/proc`."""
ANSWERS_WHILE_FAILING = 10 if SOAK else 3
FAILING_LOAD_BUDGET_S = "15" if SOAK else "4"
"""While it fails, forkservers are started again and again: two seconds of a core each."""

# Many models.
MODELS = 1000
CHANGES_OF_MODELS = (100, 1000, 5000)
CALLED_MODELS = 20
"""Whose aliases are active where no model is fetched before it is called."""
MODEL_CHANGES = 80
"""Of active aliases, and as many of others."""

# Expensive bodies beside an observed promotion.
STRANGERS_BODIES = 100 if SOAK else 8

# Frozen processes.
FROZEN_S = (5.0, 15.0, 60.0) if SOAK else (5.0,)
FOLLOWED_LIMIT_S = 2.0 if SOAK else 20.0
"""From the end of the freeze, or from the alias's move, to the alias's new meaning here; the
contract's figure on a machine that is busy with nothing else."""
