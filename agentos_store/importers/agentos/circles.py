"""Links between tasks that must not make a circle, checked one by one as they are read."""

from __future__ import annotations


class Acyclic:
    """Links that make no circle.

    The tasks are kept in an order in which each comes after those that it needs (Pearce and Kelly, 2006). A link that
    agrees with the order, as nearly every one does, costs nothing; for any other only the tasks between both of its
    ends are looked at. All links are held in memory, some hundred bytes each.
    """

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._needs: dict[str, list[str]] = {}
        self._needed_by: dict[str, list[str]] = {}
        self._first = self._last = 0

    def add(self, task: str, needed: str) -> list[str] | None:
        """Add a link; for one that would close a circle, return the circle and leave the link out."""
        if task == needed:
            return [task, task]
        place = self._place
        # Before the first and after the last there is always room for a task that has no links yet.
        if needed not in place:
            self._first -= 1
            place[needed] = self._first
        if task not in place:
            self._last += 1
            place[task] = self._last
        if place[needed] > place[task]:
            lower, upper = place[task], place[needed]
            came_from = self._reach(needed, self._needs, lower, upper)
            if task in came_from:
                path = [task]
                while path[-1] != needed:
                    path.append(came_from[path[-1]])
                return [task, *path[::-1]]
            after = self._reach(task, self._needed_by, lower, upper)
            moved = sorted(came_from, key=place.__getitem__) + sorted(after, key=place.__getitem__)
            free = sorted(place[each] for each in moved)
            place.update(zip(moved, free, strict=True))
        self._needs.setdefault(task, []).append(needed)
        self._needed_by.setdefault(needed, []).append(task)
        return None

    def _reach(self, start: str, links: dict[str, list[str]], lower: int, upper: int) -> dict[str, str]:
        """Return what is reached from the start within these places, each with the task it was reached from."""
        came_from = {start: start}
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for there in links.get(here, ()):
                if there not in came_from and lower <= self._place[there] <= upper:
                    came_from[there] = here
                    waiting.append(there)
        return came_from
