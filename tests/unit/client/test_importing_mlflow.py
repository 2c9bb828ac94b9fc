"""What is asked of a database of MLflow's, as each kind of database wants to be asked."""

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy (the extra `import`) is not installed")

from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite

from stepstream.importing.mlflow_rows import counts, history


def test_a_word_of_the_database_is_quoted() -> None:
    asked = str(history("r").compile(dialect=mysql.dialect()))
    assert "metrics.`key`" in asked
    assert "ORDER BY metrics.`key`" in asked
    assert "metrics.[key]" in str(history("r").compile(dialect=mssql.dialect()))


@pytest.mark.parametrize("dialect", [mysql, postgresql, sqlite])
def test_every_database_is_asked_by_a_parameter(dialect: object) -> None:
    for statement in (history("it's"), counts(["it's"])):
        assert "it's" not in str(statement.compile(dialect=dialect.dialect()))  # type: ignore[attr-defined]
