"""The deliberate differences from MLflow's scoring server, each with its reason."""

from __future__ import annotations

from tests.models.corpus.cases import WITH_EXAMPLE, Difference


def _refused(reason: str) -> Difference:
    return Difference(422, 200, reason)


def _read(reason: str, like: str | None = None) -> Difference:
    return Difference(200, 400, reason, like=like)


def _otherwise(reason: str, like: str | None = None, *, nulls: bool = False) -> Difference:
    return Difference(200, 200, reason, like=like, nulls=nulls)


POSITIONS = Difference(
    200,
    (200, 400),
    "Rows without names are read in the order of the signature; MLflow wants names.",
    like="dataframe_split",
)
CONVERTS = _refused(
    "A value of another type than the column's is refused; MLflow converts it, and predicts for a "
    "value that the caller did not send."
)
CUTS = _refused("A number that the column's type cannot hold is refused; MLflow cuts or wraps it.")
NULLS = _refused(
    "Null stands only in a column that the signature calls optional; MLflow puts NaN, false or the "
    "text None in its place."
)
RAGGED = _refused(
    "Rows that are not as long as the columns are refused; MLflow fills them with NaN, or cuts "
    "them."
)
ONLY_PANDAS = _refused(
    "A table in a form that only pandas reads is refused; MLflow hands pandas whatever comes."
)
DATES = _refused("A date and time is a text in ISO 8601; MLflow guesses what else it could be.")
NOT_FINITE = _otherwise(
    "What is no finite number is null in an answer: JSON has no NaN and no infinity.", nulls=True
)
ZONES = _read(
    "A date and time with a zone is read, and given to the model in UTC; MLflow refuses it."
)
GARBAGE = _refused(
    "A text that is no base64 is refused; MLflow leaves out what it cannot read of it."
)
BASE64 = _otherwise(
    "Bytes are sent in base64 in every form; MLflow reads it in the DataFrame forms only.",
    like="dataframe_split",
)
STILL_NULL = _otherwise(
    "An optional value that is null stays so; MLflow makes false, or the text None, of it."
)
COUNTS_AS_MISSING = _read(
    "An optional column of whole numbers that holds nothing but null counts as missing; MLflow "
    "refuses it."
)
RAISES = Difference(
    500,
    (400, 500),
    "The model raises on what it is given, or its answer cannot be sent: that is no fault of the "
    "body's; MLflow answers both alike.",
)
FAILS_ITS_EXAMPLE = Difference(
    503,
    (200, 400, 500),
    "A version that cannot answer its own example never serves.",
    versions=(WITH_EXAMPLE,),
)
EMPTY = _refused("A body without rows is refused; MLflow asks the model about nothing.")
READS = _read(
    "Rows are read alike in every form; on the way of this one MLflow loses what the type needs.",
    like="inputs, records",
)
TENSOR_ROWS = _read(
    "A tensor is read from rows in every form; MLflow wants this one as it is, by 'inputs'.",
    like="inputs",
)
CELLS = _otherwise("A value in a cell is that value; in this form MLflow makes an array of it.")
TEXTS = _otherwise(
    "Without a signature, values that are not all numbers come as an array of objects; MLflow's "
    "array holds texts only."
)
WHOLE = _otherwise(
    "Whole numbers that fit into 64 bits without a sign stay so; MLflow makes fractions of them."
)
HINTS = _read(
    "A model with a type hint takes its rows under every name of a list; MLflow takes 'inputs' "
    "only.",
    like="inputs",
)
EXACT = _read(
    "A number without a fraction stands for a whole number, and a whole number for any; by a type "
    "hint, and in a param, MLflow wants the very type."
)
UNKNOWN = _refused(
    "A member of the body that nothing takes is refused by its name; MLflow ignores it."
)
DATES_OUT = _otherwise(
    "Dates in an array are texts in ISO 8601, as they are elsewhere; MLflow makes counts of them."
)
SPELLS = Difference(
    200, 500, "What can be spelled in JSON is answered; MLflow's server fails on it."
)
ONLY_NOT_FINITE = Difference(
    503,
    200,
    "A version that answers its own example with no finite number at all never serves.",
    versions=(WITH_EXAMPLE,),
)
