"""The same rows in every form that a body can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.models.corpus.cases import Document

Columns = Mapping[str, Sequence[Any]]
"""JSON values by the column's name, all columns of one length."""


def split(columns: Sequence[Any], data: Any, **more: Any) -> Document:
    """Return a body with a table."""
    return {"dataframe_split": {**more, "columns": columns, "data": data}}


def of_columns(columns: Columns) -> dict[str, Document]:
    """Return rows of named columns in every form."""
    names = list(columns)
    data = [list(row) for row in zip(*columns.values(), strict=True)]
    records = [dict(zip(names, row, strict=True)) for row in data]
    return {
        "dataframe_split": split(names, data),
        "dataframe_split, other order": split(names[::-1], [row[::-1] for row in data]),
        "dataframe_split, index": split(
            names, data, index=[f"row {number}" for number in range(len(data))]
        ),
        "dataframe_split, no columns": {"dataframe_split": {"data": data}},
        "dataframe_records": {"dataframe_records": records},
        "inputs, columns": {"inputs": {name: list(values) for name, values in columns.items()}},
        "inputs, records": {"inputs": records},
        "inputs, one record": {"inputs": records[0]},
        "inputs, rows": {"inputs": data},
        "instances, records": {"instances": records},
        "instances, rows": {"instances": data},
        "instances, columns": {
            "instances": {name: list(values) for name, values in columns.items()}
        },
    }


def faults_of_columns(columns: Columns) -> dict[str, Document]:
    """Return bodies that a model of these columns, all numbers, cannot answer; or can just so."""
    names = list(columns)
    first = {name: values[0] for name, values in columns.items()}
    last = names[-1]
    return {
        "a column too many": {"dataframe_records": [first | {"unknown": 1.0}]},
        "a column too few": {
            "dataframe_records": [{name: first[name] for name in names if name != last}]
        },
        "a column named twice": split([*names, last], [[*first.values(), 1.0]]),
        "a string": {"dataframe_records": [first | {last: "many"}]},
        "a number as a string": {"dataframe_records": [first | {last: "1.5"}]},
        "a boolean": {"dataframe_records": [first | {last: True}]},
        "null": {"dataframe_records": [first | {last: None}]},
        "a list": {"dataframe_records": [first | {last: [1.0]}]},
        "no rows": split(names, []),
        "no records": {"dataframe_records": []},
        "rows of other lengths": split(names, [list(first.values()), [1.0]]),
        "columns of other lengths": {"inputs": {**dict(columns), last: [1.0]}},
        "records no objects": {"dataframe_records": [1.0]},
        "records no list": {"dataframe_records": first},
        "split no object": {"dataframe_split": [1.0]},
        "one value for a column": {"inputs": {**dict(columns), last: first[last]}},
        "a column too many, of one value": {"inputs": {**dict(columns), "unknown": "x"}},
        "records of lists": {"dataframe_records": [list(first.values())]},
        "data of records": split(names, [first]),
        "data of columns": split(names, dict(columns)),
        "columns of null": split([*names, None], [[*first.values(), 1.0]]),
        "two forms": {"dataframe_records": [first], "instances": [first]},
        "no form": {"rows": [first]},
        "nothing": {},
    }


def of_tensor(rows: Sequence[Any]) -> dict[str, Document]:
    """Return one tensor in every form; the first dimension is the row."""
    forms: dict[str, Document] = {
        "inputs": {"inputs": list(rows)},
        "instances": {"instances": list(rows)},
        "inputs, one row": {"inputs": list(rows)[:1]},
    }
    if isinstance(rows[0], list):
        names = [str(number) for number in range(len(rows[0]))]
        forms |= {
            "dataframe_split": split(names, list(rows)),
            "dataframe_split, no columns": {"dataframe_split": {"data": list(rows)}},
            "dataframe_records": {
                "dataframe_records": [dict(zip(names, row, strict=True)) for row in rows]
            },
        }
    return forms


def faults_of_tensor(rows: Sequence[Any]) -> dict[str, Document]:
    """Return bodies that a model of a matrix of these numbers cannot answer; or can just so."""
    first = list(rows[0])
    return {
        "too wide": {"inputs": [[*first, 1.0]]},
        "too narrow": {"inputs": [first[:-1]]},
        "too deep": {"inputs": [[first]]},
        "too flat": {"inputs": first},
        "rows of other lengths": {"inputs": [first, first[:-1]]},
        "a string": {"inputs": [["many", *first[1:]]]},
        "null": {"inputs": [[None, *first[1:]]]},
        "no rows": {"inputs": []},
        "by a name": {"inputs": {"x": list(rows)}},
        "no list": {"inputs": 1.0},
        "nothing": {},
    }


def of_tensors(columns: Mapping[str, Sequence[Any]]) -> dict[str, Document]:
    """Return named tensors in every form."""
    names = list(columns)
    count = len(next(iter(columns.values())))
    records = [{name: columns[name][row] for name in names} for row in range(count)]
    data = [[record[name] for name in names] for record in records]
    return {
        "inputs, by name": {"inputs": {name: list(values) for name, values in columns.items()}},
        "inputs, records": {"inputs": records},
        "instances, records": {"instances": records},
        "instances, rows": {"instances": data},
        "dataframe_split": split(names, data),
        "dataframe_records": {"dataframe_records": records},
    }


def of_values(values: Sequence[Any]) -> dict[str, Document]:
    """Return a list of anything, as models with a type hint take it, in every form."""
    records = [value if isinstance(value, dict) else {"0": value} for value in values]
    names = list(dict.fromkeys(name for record in records for name in record))
    data = [[record.get(name) for name in names] for record in records]
    return {
        "inputs": {"inputs": list(values)},
        "inputs, one": {"inputs": list(values)[:1]},
        "inputs, none": {"inputs": []},
        "inputs, no list": {"inputs": values[0]},
        "instances": {"instances": list(values)},
        "dataframe_split": split(names, data),
        "dataframe_records": {"dataframe_records": records},
    }
