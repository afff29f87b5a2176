"""The audit of a database, for stories: filled, and tampered with."""

from sqlalchemy import Engine, text

from service.audit.chain import Row
from service.audit.event import Action, Event
from service.persistence import trail

NOBODY = "local:test"


def some_events(engine: Engine, count: int = 5) -> list[Row]:
    """All rows of the audit, after so many more were recorded."""
    for number in range(count):
        trail.record(engine, Event(Action.READ, NOBODY, "diagnosis", f"case {number}"))
    return [row for row, _ in trail.events(engine)]


def behind_its_back(engine: Engine, *statements: str) -> None:
    """What somebody does who owns the database."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for trigger in ("audit_events_stay", "audit_events_last"):
                connection.execute(text(f"DROP TRIGGER {trigger}"))
        else:
            connection.execute(text("DROP TRIGGER audit_events_stay ON audit_events"))
        for statement in statements:
            connection.execute(text(statement))
