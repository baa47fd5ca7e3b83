"""The deliberate differences from MLflow's scoring server, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from tests.models.corpus.cases import WITH_EXAMPLE, Difference

POSITIONS = Difference(
    200,
    (200, 400),
    "Rows without names are read in the order of the signature; MLflow wants names.",
)
CONVERTS = Difference(
    422,
    200,
    "A value of another type than the column's is refused; MLflow converts it, and predicts for a "
    "value that the caller did not send.",
)
CUTS = Difference(
    422, 200, "A number that the column's type cannot hold is refused; MLflow cuts or wraps it."
)
NULLS = Difference(
    422,
    200,
    "Null stands only in a column that the signature calls optional; MLflow puts NaN, false or the "
    "text None in its place.",
)
RAGGED = Difference(
    422, 200, "Rows that are not as long as the columns are refused; MLflow fills them with NaN."
)
DATES = Difference(
    422, 200, "A date and time is a text in ISO 8601; MLflow guesses what else it could be."
)
NOT_FINITE = Difference(
    200, 200, "What is no finite number is null in an answer: JSON has no NaN and no infinity."
)
ZONES = Difference(
    200,
    400,
    "A date and time with a zone is read, and given to the model in UTC; MLflow refuses it.",
)
GARBAGE = Difference(
    422, 200, "A text that is no base64 is refused; MLflow leaves out what it cannot read of it."
)
BASE64 = Difference(
    200, 200, "Bytes are sent in base64 in every form; MLflow reads it in the DataFrame forms only."
)
STILL_NULL = Difference(
    200,
    200,
    "An optional value that is null stays so; MLflow makes false, or the text None, of it.",
)
COUNTS_AS_MISSING = Difference(
    200,
    400,
    "An optional column of whole numbers that holds nothing but null counts as missing; MLflow "
    "refuses it.",
)
FAILS_ITS_EXAMPLE = Difference(
    503,
    (200, 400, 500),
    "A version that cannot answer its own example never serves.",
    versions=(WITH_EXAMPLE,),
)
EMPTY = Difference(422, 200, "A body without rows is refused; MLflow asks the model about nothing.")

TABLE: Mapping[str, Difference] = {
    "dataframe_split, no columns": POSITIONS,
    "inputs, rows": POSITIONS,
    "instances, rows": POSITIONS,
}
"""What `bodies.of_columns` shows for a model of named columns."""
FAULTS: Mapping[str, Difference] = {
    "a number as a string": CONVERTS,
    "a boolean": CONVERTS,
}
"""What `bodies.faults_of_columns` shows for a model of columns that are all numbers."""
FAULTS_OF_PATIENT: Mapping[str, Difference] = {
    **FAULTS,
    "null": NULLS,
    "rows of other lengths": RAGGED,
}
"""The same for a model that bears missing numbers."""
