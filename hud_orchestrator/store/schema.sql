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

-- Going back to an earlier step: written before the head is moved, ended with all that it changes here.
CREATE TABLE rollbacks (
    id            INTEGER PRIMARY KEY,
    to_step       INTEGER NOT NULL CHECK (to_step >= 0),
    to_checkpoint TEXT NOT NULL,
    reason        TEXT NOT NULL,
    asked_at      TEXT NOT NULL,
    state         TEXT NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'done', 'refused')),
    -- Where the run was.
    from_step       INTEGER,
    from_checkpoint TEXT,
    detail        TEXT,
    ended_at      TEXT,
    CHECK ((state = 'asked') = (ended_at IS NULL)),
    CHECK (state <> 'done' OR from_step >= to_step)
) STRICT;
CREATE UNIQUE INDEX one_rollback_at_a_time ON rollbacks (state) WHERE state = 'asked';

-- One row per time that a guard fired.
CREATE TABLE firings (
    id       INTEGER PRIMARY KEY,
    guard    TEXT NOT NULL,
    step     INTEGER NOT NULL,
    -- Steps that the run had taken by then, those it went back from included.
    taken    INTEGER NOT NULL,
    action   TEXT NOT NULL CHECK (action IN ('warn', 'pause', 'lower_learning_rate', 'roll_back')),
    detail   TEXT NOT NULL,
    -- What the learning rate is multiplied by from then on.
    scale    REAL NOT NULL CHECK (scale > 0),
    rollback INTEGER REFERENCES rollbacks (id),
    fired_at TEXT NOT NULL,
    -- A pause is over its beginning when the run has ended for it; everything else at once.
    heeded   INTEGER NOT NULL CHECK (heeded IN (0, 1)),
    CHECK (heeded = 1 OR action = 'pause'),
    -- A guard fires once for a step.
    UNIQUE (guard, taken)
) STRICT;

-- One row per attempt at a step.
CREATE TABLE steps (
    id            INTEGER PRIMARY KEY,
    number        INTEGER NOT NULL CHECK (number >= 1),
    state         TEXT NOT NULL DEFAULT 'planned'
                  CHECK (state IN ('planned', 'applied', 'skipped', 'abandoned', 'rolled_back')),
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
    -- What took it out of the history; its groups and its checkpoint stay as they were.
    rollback      INTEGER REFERENCES rollbacks (id),
    CHECK ((state = 'planned') = (ended_at IS NULL)),
    CHECK ((state = 'rolled_back') = (rollback IS NOT NULL)),
    CHECK (state <> 'applied' OR checkpoint IS NOT NULL)
) STRICT;

-- A step is in hand, applied or skipped once; only what was abandoned or rolled back may be planned again.
CREATE UNIQUE INDEX one_try_counts ON steps (number) WHERE state NOT IN ('abandoned', 'rolled_back');
-- One step is in hand at a time.
CREATE UNIQUE INDEX one_step_in_hand ON steps (state) WHERE state = 'planned';
CREATE INDEX steps_by_head ON steps (head_before);
-- A checkpoint is the work of one step.
CREATE UNIQUE INDEX one_step_per_checkpoint ON steps (checkpoint) WHERE state IN ('applied', 'rolled_back');
CREATE INDEX steps_with_strays ON steps (strays) WHERE strays <> '[]';

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
CREATE INDEX calls_by_step ON calls (step);

-- One row per group with a graded member. No ending means not yet trained on, or not yet finished.
CREATE TABLE groups (
    number INTEGER PRIMARY KEY,
    task   TEXT NOT NULL,
    ending TEXT CHECK (ending IN
           ('trained', 'no_spread', 'no_gradient', 'failed', 'partial', 'no_tokens', 'stale', 'lost',
            'not_finite', 'rolled_back')),
    step   INTEGER,
    -- How many members it has when it is finished.
    size   INTEGER NOT NULL CHECK (size >= 1),
    -- Of the members that were graded.
    rewards TEXT NOT NULL DEFAULT '[]',
    -- What took its step out of the history, or ended it.
    rollback INTEGER REFERENCES rollbacks (id)
) STRICT;
CREATE INDEX groups_by_step ON groups (step) WHERE step IS NOT NULL;

-- One row per graded member: what they are searched and counted by, and a document of everything else.
CREATE TABLE kept_rollouts (
    group_number INTEGER NOT NULL REFERENCES groups (number),
    member       INTEGER NOT NULL,
    trace_id     TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    reward       REAL,
    grade        TEXT,
    num_tokens   INTEGER NOT NULL,
    version_min  INTEGER,
    version_max  INTEGER,
    remote       INTEGER NOT NULL,
    -- Written in one go, by the hundred in each step; what is at its default is not in it.
    document     TEXT NOT NULL,
    -- Beside the rows, which are long: so they are appended, and not moved about.
    PRIMARY KEY (group_number, member)
) STRICT;

CREATE VIEW rollouts AS
SELECT group_number, member, trace_id, outcome, reward, grade, num_tokens, version_min, version_max, remote,
       json_extract(document, '$.answer') AS answer,
       json_extract(document, '$.detail') AS detail,
       json_extract(document, '$.seconds') AS seconds,
       coalesce(json_extract(document, '$.attempts'), 1) AS attempts,
       coalesce(json_extract(document, '$.phase'), 'teardown') AS phase,
       json_extract(document, '$.phases') AS phases,
       strftime('%Y-%m-%dT%H:%M:%f+00:00', json_extract(document, '$.began_at'), 'unixepoch') AS began_at,
       json_extract(document, '$.samples') AS samples,
       json_extract(document, '$.steps') AS steps
FROM kept_rollouts;

CREATE TABLE evaluations (
    id         INTEGER PRIMARY KEY,
    version    INTEGER NOT NULL,
    checkpoint TEXT,
    reward     REAL NOT NULL,
    graded     INTEGER NOT NULL,
    attempted  INTEGER NOT NULL,
    seconds    REAL NOT NULL,
    ended_at   TEXT NOT NULL,
    tasks      TEXT NOT NULL,
    rollback   INTEGER REFERENCES rollbacks (id)
) STRICT;
CREATE UNIQUE INDEX one_evaluation_per_version ON evaluations (version) WHERE rollback IS NULL;

-- What must never be is refused here, whatever asks for it. A step begins in hand, after the last one that is
-- over and on the head that this one left, ...
CREATE TRIGGER a_step_begins_in_hand BEFORE INSERT ON steps
WHEN NEW.state <> 'planned' OR NEW.checkpoint IS NOT NULL OR EXISTS
     (SELECT 1 FROM steps WHERE id = NEW.id OR state = 'planned')
BEGIN
    SELECT RAISE(ABORT, 'a step begins in hand, and is the only one');
END;

CREATE TRIGGER a_step_follows_the_last_one BEFORE INSERT ON steps
WHEN NEW.number <> 1 + coalesce(
         (SELECT max(number) FROM steps WHERE state NOT IN ('abandoned', 'rolled_back')), 0)
     OR NEW.head_before IS NOT coalesce(
         (SELECT checkpoint FROM steps WHERE state NOT IN ('abandoned', 'rolled_back')
          AND checkpoint IS NOT NULL ORDER BY number DESC LIMIT 1), NEW.head_before)
BEGIN
    SELECT RAISE(ABORT, 'a step follows the last one that is over, on the head that it left');
END;

-- ... is what it was planned to be, ...
CREATE TRIGGER a_plan_stays BEFORE UPDATE OF id, number, groups, digest, learning_rate, head_before, planned_at
ON steps
BEGIN
    SELECT RAISE(ABORT, 'a step is what it was planned to be');
END;

-- ... and ends once, by the rules (rules/steps.py). Only going back takes it out of the history.
CREATE TRIGGER a_step_ends_once BEFORE UPDATE OF state ON steps
WHEN NOT ((OLD.state = 'planned' AND NEW.state IN ('applied', 'skipped', 'abandoned'))
          OR (OLD.state IN ('applied', 'skipped') AND NEW.state = 'rolled_back'))
BEGIN
    SELECT RAISE(ABORT, 'a step ends once');
END;

CREATE TRIGGER what_a_step_made_stays BEFORE UPDATE OF checkpoint ON steps
WHEN NEW.checkpoint IS NOT OLD.checkpoint
     AND (OLD.state <> 'planned' OR NEW.state <> 'applied' OR NEW.checkpoint IS OLD.head_before)
BEGIN
    SELECT RAISE(ABORT, 'only a step that is applied has made a checkpoint, and another one than its head');
END;

CREATE TRIGGER a_step_is_applied_by_a_call BEFORE UPDATE OF state ON steps
WHEN NEW.state = 'applied' AND NOT EXISTS (SELECT 1 FROM calls WHERE step = NEW.id
     AND kind = 'optim_step' AND (ending IS NULL OR ending = 'confirmed'))
BEGIN
    SELECT RAISE(ABORT, 'a step without an optim_step that may have been applied');
END;

-- Going back to where it was refused takes nothing away.
CREATE TRIGGER a_refused_rollback_takes_nothing BEFORE UPDATE OF rollback ON steps
WHEN (SELECT state FROM rollbacks WHERE id = NEW.rollback) = 'refused'
BEGIN
    SELECT RAISE(ABORT, 'a rollback that was refused');
END;

CREATE TRIGGER a_rollback_ends_once BEFORE UPDATE OF state ON rollbacks WHEN OLD.state <> 'asked'
BEGIN
    SELECT RAISE(ABORT, 'a rollback ends once');
END;

-- A step's calls come while it is in hand, without an ending, ...
CREATE TRIGGER a_call_is_of_a_step_in_hand BEFORE INSERT ON calls
WHEN (SELECT state FROM steps WHERE id = NEW.step) <> 'planned'
BEGIN
    SELECT RAISE(ABORT, 'a call of a step that is over');
END;

CREATE TRIGGER a_call_begins_without_an_ending BEFORE INSERT ON calls
WHEN NEW.ending IS NOT NULL OR EXISTS (SELECT 1 FROM calls WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'a call begins without an ending, under an id of its own');
END;

-- ... none on top of one that was refused, or whose outcome is unknown, which is the fence, ...
CREATE TRIGGER no_call_passes_a_fence BEFORE INSERT ON calls
WHEN EXISTS (SELECT 1 FROM calls WHERE step = NEW.step AND (ending IS NULL OR ending = 'rejected'))
BEGIN
    SELECT RAISE(ABORT, 'a call on top of one that failed or whose outcome is unknown');
END;

-- ... none after the one that steps, and that one on a gradient.
CREATE TRIGGER the_last_call_steps_on_a_gradient BEFORE INSERT ON calls
WHEN EXISTS (SELECT 1 FROM calls WHERE step = NEW.step AND kind = 'optim_step' AND ending = 'confirmed')
     OR (NEW.kind = 'optim_step' AND NOT EXISTS (SELECT 1 FROM calls WHERE step = NEW.step
         AND kind IN ('forward_backward', 'backward') AND ending = 'confirmed'))
BEGIN
    SELECT RAISE(ABORT, 'the last call of a step is its optim_step, on a gradient that was confirmed');
END;

-- A call is what was sent, and ends once.
CREATE TRIGGER a_call_stays BEFORE UPDATE OF id, step, kind, sent_at ON calls
BEGIN
    SELECT RAISE(ABORT, 'a call is what was sent');
END;

CREATE TRIGGER a_call_ends_once BEFORE UPDATE ON calls WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a call ends once');
END;

-- Nothing of it is forgotten.
CREATE TRIGGER a_step_is_not_forgotten BEFORE DELETE ON steps
BEGIN
    SELECT RAISE(ABORT, 'a step is not forgotten');
END;

CREATE TRIGGER a_call_is_not_forgotten BEFORE DELETE ON calls
BEGIN
    SELECT RAISE(ABORT, 'a call is not forgotten');
END;

CREATE TRIGGER a_group_is_not_forgotten BEFORE DELETE ON groups
BEGIN
    SELECT RAISE(ABORT, 'a group is not forgotten');
END;

-- A group ends once, and has been trained on by a step that was applied.
CREATE TRIGGER a_group_begins_without_an_ending BEFORE INSERT ON groups WHEN NEW.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a group begins without an ending');
END;

CREATE TRIGGER a_group_ends_once BEFORE UPDATE OF ending, step ON groups WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a group ends once');
END;

CREATE TRIGGER a_group_is_trained_on_by_a_step BEFORE UPDATE OF ending ON groups
WHEN NEW.ending = 'trained' AND NOT EXISTS (SELECT 1 FROM steps WHERE number = NEW.step
     AND state NOT IN ('abandoned', 'rolled_back') AND state = 'applied')
BEGIN
    SELECT RAISE(ABORT, 'a group is trained on by a step that was applied');
END;
