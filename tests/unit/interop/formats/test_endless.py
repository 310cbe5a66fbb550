"""Databases that would never end are refused before they are asked."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.formats import ase_sqlite, find
from support.labelled import GFN1, shaken_methanol, snapshot_of

pytestmark = pytest.mark.thorough
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("table", ["systems", "information", "Systems"])
def test_views_in_the_place_of_tables_are_refused(tmp_path: Path, table: str) -> None:
    path = tmp_path / "a.db"
    find("ase-db").write(snapshot_of(shaken_methanol(2)), path, GFN1)
    with sqlite3.connect(path) as connection:
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
        connection.execute(f"ALTER TABLE {table} RENAME TO before")
        connection.execute(f"CREATE VIEW {table} AS {ENDLESS} {', '.join(f'x AS {name}' for name in columns)} FROM c")
    connection.close()
    with pytest.raises(InputError, match="is a view"):
        next(ase_sqlite.rows(path, FileAccount()))
