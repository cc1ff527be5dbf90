"""Rows by COPY, a batch at a time: some columns differ from row to row, all others have what the model says
they have when nothing is said. Knows nothing of what the rows mean."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, models
from django.utils import timezone


class Copier:
    """Writes rows of `model` that say `varying`, in this order. `same` is said of all of them."""

    def __init__(self, model: type[models.Model], varying: Sequence[str], **same: Any):
        fields = {each.attname: each for each in model._meta.concrete_fields}
        now = timezone.now()
        rest = {}
        for name, each in fields.items():
            if name not in varying and not each.primary_key and not each.has_db_default():
                rest[name] = (
                    now if getattr(each, "auto_now_add", False) else same.get(name, each.get_default())
                )
        assert set(same) <= set(rest) and set(varying) <= set(fields)
        self.constants = tuple(_kept(fields[name], value) for name, value in rest.items())
        quote = connection.ops.quote_name
        columns = ", ".join(quote(str(fields[name].column)) for name in (*varying, *rest))
        self.statement = f"COPY {quote(model._meta.db_table)} ({columns}) FROM STDIN"
        self.sequence = model._meta.db_table, str(fields[model._meta.pk.attname].column)

    def write(self, rows: Iterable[tuple]) -> None:
        rows = list(rows)  # whatever makes them may ask the database, which takes no questions during a COPY
        if not rows:
            return
        with connection.cursor() as cursor, cursor.copy(self.statement) as copy:
            for row in rows:
                copy.write_row(row + self.constants)

    def numbers(self, count: int) -> list[int]:
        """So many primary keys that are nobody else's."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)",
                [*self.sequence, count],
            )
            return [number for (number,) in cursor.fetchall()]


def _kept(field: models.Field, value: Any) -> Any:
    return json.dumps(value) if isinstance(field, models.JSONField) and value is not None else value
