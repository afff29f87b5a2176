"""A panel in the making: what stays of the former one, and what takes its place."""

from dataclasses import dataclass, field

from specialists.catalogue import panel_of
from specialists.panel import Member, Panel
from specialists.prediction import MissingSpecialist
from specialists.stamps import Stamp
from specialists.task import Task


@dataclass(slots=True)
class Draft:
    """`new` names whom to read: those whose folders look otherwise than when they were read."""

    task: Task
    stamps: dict[str, Stamp]
    members: dict[str, Member] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # why one is missing, or refused

    @classmethod
    def of(cls, task: Task, former: Panel | None) -> "Draft":
        """Begins with the former members that were trained for the task as it is now."""
        if former is None:
            return cls(task, {})
        fit = {one.specialist.name: one for one in former.members if one.serves(task)}
        reasons = {one.specialist: one.reason for one in former.missing} | dict(former.refused)
        return cls(task, dict(former.stamps), fit, reasons)

    def new(self, stamps: dict[str, Stamp]) -> tuple[str, ...]:
        """Whom to read, now that the folders look like this."""
        return tuple(
            name
            for name in panel_of(self.task)
            if name not in self.members or stamps[name] != self.stamps.get(name)
        )

    def take(self, member: Member, stamp: Stamp) -> None:
        """From now on this one answers."""
        name = member.specialist.name
        self.members[name], self.stamps[name] = member, stamp
        self.reasons.pop(name, None)

    def refuse(self, name: str, stamp: Stamp, reason: str) -> None:
        """What the folder holds cannot be used: a former member stays, unless it was removed."""
        self.stamps[name], self.reasons[name] = stamp, reason
        if not stamp:
            self.members.pop(name, None)

    def panel(self) -> Panel:
        names = panel_of(self.task)
        absent = [name for name in names if name not in self.members]
        return Panel(
            task=self.task,
            members=tuple(self.members[name] for name in names if name in self.members),
            missing=tuple(MissingSpecialist(name, self.reasons[name]) for name in absent),
            stamps=dict(self.stamps),
            refused={n: r for n, r in self.reasons.items() if n in self.members},
        )
