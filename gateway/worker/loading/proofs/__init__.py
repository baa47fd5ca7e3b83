"""Proofs that a shortcut changes no answer: joining requests, and calling a model directly.

Two shortcuts make a worker fast, and each could give a caller a wrong answer without an error:

* *Batching* joins the rows of several requests into one call of the model. It is wrong for a model
  whose rows influence each other: one that subtracts the mean of its input, or sorts it.
* The *fast call* gives the bare estimator an array, without MLflow's wrapper and its DataFrame. It
  is wrong for a model that finds its columns by name, or whose wrapper changes answers.

So neither is used until it is proved on the very artifact, with its logged input example:

* `joining` predicts variations of the example alone, joined, in reverse order, and between rows far
  from the example. All answers must agree, rounding excepted, and some must differ from each
  other: equal answers prove nothing. Then it doubles the number of rows, as far as each number is
  proved; never more rows than that are joined.
* `fast_path` compares the bare model with MLflow's call, bit for bit, on the same variations and on
  scattered numbers; for an estimator also the probabilities and scores from which labels are made.

A shortcut is *disproved* if one comparison differs, a joined call fails, or an answer has not one
item per row. The model is then called in the plain way, and `Loaded` carries the reason. It stays
*unproved* if there is no example or the time budget ends; `background` goes on between requests.

`warm_up` orders the proofs and `prover` makes their calls, within the budget. `proof` holds the
findings, which the gateway keeps for later workers of the same artifact and libraries.
"""
