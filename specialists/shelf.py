"""The panels in memory, in the order of their last use, and those described only."""

import asyncio
from collections.abc import Iterable, Mapping

from specialists import memory
from specialists.description import LoadedPanel, Resting
from specialists.panel import Member, Panel
from specialists.stamps import Stamp
from specialists.task import Task


class Shelf:
    """Panels by task. Where memory is short, those go that have gone unused for longest.

    `memory_bytes` bounds the weights of all panels, None does not. A panel in use never goes, and
    the one that is wanted is taken in even where it alone is too large.
    """

    def __init__(self, memory_bytes: int | None) -> None:
        self._memory_bytes = memory_bytes
        self._panels: dict[str, Panel] = {}
        self._resting: dict[str, Resting] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(self._panels.values())

    def stamps(self) -> tuple[tuple[Task, Mapping[str, Stamp]], ...]:
        """How the folders of every task looked when they were dealt with."""
        of_panels = ((panel.task, panel.stamps) for panel in self.panels)
        return (*of_panels, *((one.task, one.stamps) for one in self._resting.values()))

    def described(self) -> tuple[tuple[Task, LoadedPanel], ...]:
        """Every panel known so far, those first that are in memory."""
        in_memory = ((panel.task, panel.describe()) for panel in self.panels)
        return (*in_memory, *((one.task, one.description) for one in self._resting.values()))

    def get(self, name: str) -> Panel | None:
        """A task's panel, if it is in memory."""
        return self._panels.get(name)

    def use(self, task: Task) -> Panel | None:
        """The panel of a task as it is now, if it is in memory; it now counts as used last."""
        panel = self._panels.get(task.name)
        if panel is None or panel.task != task:
            return None
        self._panels[task.name] = self._panels.pop(task.name)
        return panel

    def put(self, panel: Panel) -> None:
        """From now on this panel answers; members that are not on it finish and go."""
        former = self._panels.pop(panel.task.name, None)
        self._resting.pop(panel.task.name, None)
        self._panels[panel.task.name] = panel
        self._retire(member for member in _members(former) if member not in panel.members)

    def rest(self, resting: Resting) -> None:
        """A panel that is described only."""
        self._resting[resting.task.name] = resting

    def has_room(self, more_bytes: int) -> bool:
        """Whether so much more fits beside what is in memory."""
        if self._memory_bytes is None:
            return True
        members = [member.specialist for panel in self.panels for member in panel.members]
        return memory.footprint(members) + more_bytes <= self._memory_bytes

    def make_room(self, more_bytes: int, spare: str) -> None:
        """Lets panels go until so much more fits, except one that is spared."""
        for panel in self.panels:
            if self.has_room(more_bytes):
                return
            if panel.task.name != spare and not panel.is_used:
                self._unload(panel)

    def trim(self) -> None:
        """Lets panels go that were in use when room was made; the one used last stays."""
        if self._panels:
            self.make_room(0, spare=next(reversed(self._panels)))

    async def close(self) -> None:
        """Lets everything go at once; who still waits gets PoolOverloaded."""
        members = [member for panel in self.panels for member in panel.members]
        self._panels.clear()
        self._resting.clear()
        for job in self._retiring:
            job.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await asyncio.gather(*(member.batcher.close() for member in members))

    def _unload(self, panel: Panel) -> None:
        name = panel.task.name
        told = panel.describe()
        description = LoadedPanel(name, told.specialists, told.missing, in_memory=False)
        self._resting[name] = Resting(panel.task, dict(panel.stamps), description)
        self._retire(self._panels.pop(name).members)

    def _retire(self, members: Iterable[Member]) -> None:
        for member in members:
            job = asyncio.create_task(member.retire(), name=f"retire {member.specialist.name}")
            self._retiring.add(job)
            job.add_done_callback(self._retiring.discard)


def _members(panel: Panel | None) -> tuple[Member, ...]:
    return panel.members if panel is not None else ()
