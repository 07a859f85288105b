"""What can be found on either database."""

from __future__ import annotations

from agentos_store.operations.doctor.report import Kind

_UPGRADE = "Run `agentos-store db upgrade`."

EXAMINATION = {
    "cannot-open": Kind(
        "error",
        "What lies behind the door was not looked at.",
        "Put right what the message names, and run the doctor again.",
    ),
    "check-failed": Kind(
        "warning",
        "Whether this is in order is not known.",
        "Put right what the message names, and run the doctor again.",
    ),
    "check-unfinished": Kind(
        "note",
        "The check took longer than it may, so whether this is in order is not known.",
        "Run `agentos-store doctor --deep` at a quiet hour, which gives each check more time.",
    ),
}

SCHEMA = {
    "revision-missing": Kind(
        "error",
        "There is no schema of this store, or somebody removed its version table; no store opens it.",
        "See that the URL and the schema are the right ones, then run `agentos-store db upgrade`.",
    ),
    "revision-old": Kind("error", "The schema is older than this code, which refuses to open it.", _UPGRADE),
    "revision-foreign": Kind(
        "error",
        "The schema is newer than this code, or another program's; this code refuses to open it.",
        "Install the version of agentos-store that made it, or a newer one.",
    ),
    "move-unfinished": Kind(
        "error",
        "A copy or a restore into this database was not finished, so that rows are missing; no store opens it.",
        "Run the same command again; it goes on where it was.",
    ),
    "table-missing": Kind(
        "error",
        "Operations that need the table fail.",
        "Restore a backup: a table that somebody dropped took its rows with it.",
    ),
    "trigger-missing": Kind(
        "error",
        "What the trigger guards is unguarded: audits can be changed, invalid JSON comes in, or the search index is no"
        " longer kept.",
        "See `agentos-store db check` for its definition, create or enable it again, then run"
        " `agentos-store audit verify`.",
    ),
    "index-missing": Kind(
        "warning",
        "Lists and claims that it serves read whole tables, the slower the more rows there are.",
        "See `agentos-store db check` for its definition, and create it again.",
    ),
    "drift": Kind(
        "error",
        "Statements may fail, or rows come in that break the rules of the schema.",
        "See `agentos-store db check`, and bring the database back to what the models say.",
    ),
    "schema-extra": Kind(
        "note",
        "Somebody added something to our tables; each write pays for it, and an upgrade may stumble over it.",
        "Keep it if it was meant; else drop it.",
    ),
    "drift-unchecked": Kind(
        "note",
        "The comparison with the models makes their schema beside the database's, which this role may not or this"
        " server cannot.",
        "Run `agentos-store db check` on the primary as the owner of the tables.",
    ),
}

DATA = {
    "search-behind": Kind(
        "note",
        "The next search in messages indexes them first, and takes longer for it.",
        "Nothing; or search once at a quiet hour.",
    ),
    "search-incomplete": Kind(
        "error",
        "Searches do not find what is there: rows were changed behind the index's back.",
        "Call `store.search.rebuild()`.",
    ),
    "search-orphans": Kind(
        "note",
        "Documents of rows that are gone are in the index; they are never found, but take room.",
        "Call `store.search.rebuild()`.",
    ),
    "search-damaged": Kind(
        "error",
        "The full-text table does not hold what the documents say, so searches are wrong.",
        "Call `store.search.rebuild()`.",
    ),
    "consistency": Kind(
        "warning",
        "Counters, numbers or states contradict the rows that they are about.",
        "Look at `store.check_consistency()`, then call `store.repair()`.",
    ),
    "audit-chains": Kind(
        "error",
        "Entries of the audit trail were changed, removed or put in.",
        "See `agentos-store audit verify`, and compare with a backup.",
    ),
    "inbox-stuck": Kind(
        "warning",
        "Whoever claimed these events died, and nobody has claimed them since: no supervisor is at work.",
        "Start the supervisor; its next claim takes them.",
    ),
    "inbox-waiting": Kind(
        "warning",
        "Events come in and nobody looks at them.",
        "Start the supervisor, or look why it does not claim: `agentos-store inbox list`.",
    ),
    "inbox-parked": Kind(
        "warning",
        "These events failed so often that nobody claims them any more.",
        "Look at them with `agentos-store inbox list`, and let them out with `agentos-store inbox unpark`.",
    ),
    "tasks-stuck": Kind(
        "warning",
        "Their workers died, and nobody has claimed anything since.",
        "Start workers, or run `agentos-store tasks reclaim`.",
    ),
    "tasks-waiting": Kind(
        "warning",
        "Tasks are ready and no worker takes them.",
        "Start workers for their types: `agentos-store tasks queue`.",
    ),
    "tool-calls-open": Kind(
        "warning",
        "Calls have not ended for so long that whoever made them is probably gone.",
        "Call `store.tool_calls.settle_dangling()` for their agents, or `store.repair()`.",
    ),
    "approvals-waiting": Kind(
        "note",
        "Agents wait for somebody's word.",
        "Look at `store.tool_calls.pending_approvals()`, and decide.",
    ),
    "quotas-exceeded": Kind(
        "note",
        "These users have used more than their quota, which was lowered below it; they can consume no more.",
        "Raise the quota, or leave it.",
    ),
    "run-unfinished": Kind(
        "warning",
        "Upkeep was killed, and nothing of its kind was finished since.",
        "Run it again; it goes on where it was.",
    ),
    "sequence-behind": Kind(
        "error",
        "The next numbers are taken already, so that inserts fail, or events are not seen.",
        "Set the sequence to the highest number: setval() on PostgreSQL, the table sqlite_sequence on SQLite.",
    ),
    "statistics-missing": Kind(
        "note",
        "The planner guesses how many rows there are, and may take an index that serves badly.",
        "Run ANALYZE once.",
    ),
}

USE = {
    "slow-operations": Kind(
        "note",
        "Calls of this open store took longer than DATABASE_SLOW_OPERATION says.",
        "See `store.metrics().operations` for which they are.",
    ),
    "write-waits": Kind(
        "note",
        "Calls of this open store waited for more than 100 ms for other writers.",
        "Shorten transactions; where many write all the time, move to PostgreSQL.",
    ),
}
