-- What a run has done. Text is UTF-8, times are ISO 8601 in UTC, lists and objects are JSON.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row per start of the daemon; no end means that it was killed.
CREATE TABLE sessions (
    id         INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    ended_at   TEXT,
    seconds    REAL,
    exit_code  INTEGER
) STRICT;

-- One row per attempt at a step.
CREATE TABLE steps (
    id            INTEGER PRIMARY KEY,
    number        INTEGER NOT NULL CHECK (number >= 1),
    state         TEXT NOT NULL DEFAULT 'planned'
                  CHECK (state IN ('planned', 'applied', 'skipped', 'abandoned')),
    groups        TEXT NOT NULL,
    digest        TEXT NOT NULL,
    learning_rate REAL NOT NULL,
    head_before   TEXT,
    checkpoint    TEXT,
    metrics       TEXT NOT NULL DEFAULT '{}',
    detail        TEXT,
    -- Checkpoints seen on top of head_before, when the step was given up, that no step is explained by.
    strays        TEXT NOT NULL DEFAULT '[]',
    planned_at    TEXT NOT NULL,
    ended_at      TEXT,
    CHECK ((state = 'planned') = (ended_at IS NULL)),
    CHECK (state <> 'applied' OR checkpoint IS NOT NULL)
) STRICT;

-- A step is in hand, applied or skipped once; only what was abandoned may be planned again.
CREATE UNIQUE INDEX one_try_counts ON steps (number) WHERE state <> 'abandoned';
-- A checkpoint is the work of one step.
CREATE UNIQUE INDEX one_step_per_checkpoint ON steps (checkpoint) WHERE state = 'applied';

-- Written before each training call. No ending means that the outcome is unknown.
CREATE TABLE calls (
    id       TEXT PRIMARY KEY,
    step     INTEGER NOT NULL REFERENCES steps (id),
    kind     TEXT NOT NULL CHECK (kind IN ('forward_backward', 'forward', 'backward', 'optim_step')),
    sent_at  TEXT NOT NULL,
    ending   TEXT CHECK (ending IN ('confirmed', 'rejected', 'not_sent')),
    detail   TEXT,
    -- What the service says that it took, of a call that accumulates.
    num_datums INTEGER,
    ended_at TEXT,
    CHECK ((ending IS NULL) = (ended_at IS NULL))
) STRICT;

-- Another optim_step for a step is possible only when the last one provably changed nothing.
CREATE UNIQUE INDEX one_optim_step ON calls (step)
    WHERE kind = 'optim_step' AND (ending IS NULL OR ending = 'confirmed');

-- One row per group with a graded member. No ending means not yet trained on, or not yet finished.
CREATE TABLE groups (
    number INTEGER PRIMARY KEY,
    task   TEXT NOT NULL,
    ending TEXT CHECK (ending IN
           ('trained', 'no_spread', 'no_gradient', 'failed', 'partial', 'no_tokens', 'stale', 'lost')),
    step   INTEGER,
    -- How many members it has when it is finished.
    size   INTEGER NOT NULL CHECK (size >= 1),
    -- Of the members that were graded.
    rewards TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX groups_by_step ON groups (step);

CREATE TABLE rollouts (
    group_number INTEGER NOT NULL REFERENCES groups (number),
    member       INTEGER NOT NULL,
    trace_id     TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    reward       REAL,
    grade        TEXT,
    answer       TEXT,
    samples      TEXT NOT NULL,
    num_tokens   INTEGER NOT NULL,
    version_min  INTEGER,
    version_max  INTEGER,
    attempts     INTEGER NOT NULL,
    seconds      REAL NOT NULL,
    detail       TEXT,
    phase        TEXT NOT NULL DEFAULT 'teardown',
    phases       TEXT NOT NULL DEFAULT '{}',
    remote       INTEGER NOT NULL DEFAULT 0,
    began_at     TEXT,
    steps        TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (group_number, member)
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluations (
    version    INTEGER PRIMARY KEY,
    checkpoint TEXT,
    reward     REAL NOT NULL,
    graded     INTEGER NOT NULL,
    attempted  INTEGER NOT NULL,
    seconds    REAL NOT NULL,
    ended_at   TEXT NOT NULL,
    tasks      TEXT NOT NULL
) STRICT;
