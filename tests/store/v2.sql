-- A store of the second version: one step taken, one in hand, one skipped before.
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
    ended_at TEXT,
    CHECK ((ending IS NULL) = (ended_at IS NULL))
) STRICT;

-- Another optim_step for a step is possible only when the last one provably changed nothing.
CREATE UNIQUE INDEX one_optim_step ON calls (step)
    WHERE kind = 'optim_step' AND (ending IS NULL OR ending = 'confirmed');

-- One row per group that was attempted to its end. No ending means finished and not yet trained on.
CREATE TABLE groups (
    number INTEGER PRIMARY KEY,
    task   TEXT NOT NULL,
    ending TEXT CHECK (ending IN
           ('trained', 'no_spread', 'no_gradient', 'failed', 'partial', 'no_tokens', 'stale')),
    step   INTEGER
) STRICT;

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

INSERT INTO meta VALUES ('slug', 'quick'), ('first_head', '');
INSERT INTO sessions VALUES (1, '2026-01-01', '2026-01-02', 12.5, 130), (2, '2026-01-03', NULL, NULL, NULL);
INSERT INTO steps (number, state, groups, digest, learning_rate, head_before, checkpoint, metrics, planned_at, ended_at)
VALUES (1, 'applied', '[0]', 'd1', 0.1, NULL, 'node-1', '{"reward_mean": 0.5}', '2026-01-01', '2026-01-01'),
       (2, 'abandoned', '[1]', 'd2', 0.1, 'node-1', NULL, '{}', '2026-01-01', '2026-01-01'),
       (2, 'skipped', '[]', 'd3', 0.1, 'node-1', NULL, '{"reward_mean": 0.0}', '2026-01-01', '2026-01-01'),
       (3, 'planned', '[2]', 'd4', 0.1, 'node-1', NULL, '{}', '2026-01-03', NULL);
INSERT INTO calls (id, step, kind, sent_at, ending, detail, ended_at)
VALUES ('c1', 1, 'forward_backward', '2026-01-01', 'confirmed', NULL, '2026-01-01'),
       ('c2', 1, 'optim_step', '2026-01-01', 'confirmed', 'node-1', '2026-01-01'),
       ('c3', 2, 'forward', '2026-01-01', 'not_sent', 'refused', '2026-01-01'),
       ('c4', 4, 'forward_backward', '2026-01-03', 'confirmed', NULL, '2026-01-03'),
       ('c5', 4, 'optim_step', '2026-01-03', NULL, NULL, NULL);
INSERT INTO groups (number, task, ending, step)
VALUES (0, '{"env": "sums", "id": "add", "args": {"a": 1}, "slug": "add-1"}', 'trained', 1),
       (1, '{"env": "sums", "id": "add", "args": {"a": 2}, "slug": "add-2"}', 'no_spread', 2),
       (2, '{"env": "sums", "id": "add", "args": {"a": 3}, "slug": "add-3"}', NULL, NULL);
INSERT INTO rollouts VALUES
 (0, 0, 't0', 'finished', 1.0, '{"score": 1.0}', 'x',
  '[{"prompt_token_ids": [1], "output_token_ids": [2], "logprobs": [-0.5], "version": 0}]', 1, 0, 0, 1, 0.5, NULL,
  'teardown', '{"act": 0.25}'),
 (0, 1, 't1', 'finished', 0.0, NULL, NULL, '[]', 0, NULL, NULL, 1, 0.5, NULL, 'teardown', '{}'),
 (1, 0, 't2', 'environment_lost', NULL, NULL, NULL, '[]', 0, NULL, NULL, 2, 0.5, 'went away', 'act', '{}'),
 (2, 0, 't3', 'finished', 0.25, NULL, NULL,
  '[{"prompt_token_ids": [1], "output_token_ids": [3], "logprobs": [-0.5], "version": 1}]', 1, 1, 1, 1, 0.5, NULL,
  'teardown', '{}'),
 (2, 1, 't4', 'finished', 0.75, NULL, NULL,
  '[{"prompt_token_ids": [1], "output_token_ids": [4], "logprobs": [-0.5], "version": 1}]', 1, 1, 1, 1, 0.5, NULL,
  'teardown', '{}');
INSERT INTO evaluations VALUES (0, NULL, 0.25, 4, 4, 1.5, '2026-01-01', '{"add-1": 0.25}');
PRAGMA user_version = 2;
