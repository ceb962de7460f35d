"""The schema of the store: numbered steps, each from the schema before it.

A step is never changed once it was released.  SQLite's ``user_version`` is the schema's number.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[str, ...]] = (
    """
    -- What a run ran on, as result.json has it; nights on the same versions share it.
    CREATE TABLE environment (
        id INTEGER PRIMARY KEY,
        json TEXT NOT NULL UNIQUE
    );
    -- A run; without "finished" it goes on, or was killed, and has no rows elsewhere.
    CREATE TABLE run (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        token TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        directory TEXT NOT NULL,
        started TEXT NOT NULL,
        finished TEXT,
        irqmatrix TEXT NOT NULL,
        exit_status INTEGER,
        cases INTEGER,
        not_as_expected INTEGER,
        unexplained INTEGER,
        environment INTEGER REFERENCES environment
    );
    CREATE INDEX run_name ON run (name);
    CREATE TABLE baseline (
        name TEXT PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES run,
        accepted TEXT NOT NULL
    ) WITHOUT ROWID;

    -- Cases, by id; what a backend was in a run; and what became of a case in it.
    CREATE TABLE case_name (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        subject TEXT NOT NULL,
        backend TEXT NOT NULL,
        irqchip TEXT NOT NULL,
        guest TEXT NOT NULL
    );
    CREATE TABLE versions (
        id INTEGER PRIMARY KEY,
        role TEXT NOT NULL,
        qemu TEXT,
        linux TEXT
    );
    CREATE UNIQUE INDEX versions_all ON versions (role, ifnull(qemu, ''), ifnull(linux, ''));
    CREATE TABLE case_result (
        case_name INTEGER NOT NULL REFERENCES case_name,
        run INTEGER NOT NULL REFERENCES run,
        verdict TEXT NOT NULL,
        as_expected INTEGER NOT NULL,
        flaky INTEGER NOT NULL,
        duration_s REAL NOT NULL,
        blame TEXT,
        detail TEXT NOT NULL,
        versions INTEGER NOT NULL REFERENCES versions,
        PRIMARY KEY (case_name, run)
    ) WITHOUT ROWID;
    CREATE INDEX case_result_run ON case_result (run);

    -- What a run looked at: the names of parts, by subject and role.
    CREATE TABLE part_set (
        id INTEGER PRIMARY KEY,
        names TEXT NOT NULL UNIQUE
    );
    CREATE TABLE place (
        id INTEGER PRIMARY KEY,
        subject TEXT NOT NULL,
        role TEXT NOT NULL,
        UNIQUE (subject, role)
    );
    CREATE TABLE looked (
        place INTEGER NOT NULL REFERENCES place,
        run INTEGER NOT NULL REFERENCES run,
        part_set INTEGER NOT NULL REFERENCES part_set,
        PRIMARY KEY (place, run)
    ) WITHOUT ROWID;
    CREATE INDEX looked_run ON looked (run);

    -- Findings by their identity, and the runs that saw them.
    CREATE TABLE finding (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        subject TEXT NOT NULL,
        part TEXT NOT NULL,
        kind TEXT NOT NULL,
        groups TEXT NOT NULL,
        family TEXT NOT NULL,
        first_seen TEXT NOT NULL
    );
    CREATE INDEX finding_thing ON finding (subject, part, kind);
    CREATE TABLE sighting (
        finding INTEGER NOT NULL REFERENCES finding,
        run INTEGER NOT NULL REFERENCES run,
        groups TEXT NOT NULL,
        status TEXT NOT NULL,
        fails INTEGER NOT NULL,
        text TEXT NOT NULL,
        rule TEXT,
        cases TEXT NOT NULL,
        versions TEXT NOT NULL,
        PRIMARY KEY (finding, run)
    ) WITHOUT ROWID;
    CREATE INDEX sighting_run ON sighting (run);

    -- Counters, metrics and rates of storms, and their values.
    CREATE TABLE measure (
        id INTEGER PRIMARY KEY,
        case_name INTEGER NOT NULL REFERENCES case_name,
        part TEXT NOT NULL,
        name TEXT NOT NULL,
        source TEXT NOT NULL,
        UNIQUE (case_name, part, name, source)
    );
    CREATE TABLE value (
        measure INTEGER NOT NULL REFERENCES measure,
        run INTEGER NOT NULL REFERENCES run,
        value REAL NOT NULL,
        -- How far it may vary in any case; without it the value depends on timing.
        floor REAL,
        PRIMARY KEY (measure, run)
    ) WITHOUT ROWID;
    CREATE INDEX value_run ON value (run);
    """,
)

SCHEMA: Final = len(MIGRATIONS)
"""The number of the newest schema."""
