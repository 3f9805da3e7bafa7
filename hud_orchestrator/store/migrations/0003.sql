-- Rollouts that were sampled elsewhere have no tokens here, and train by their trace id.

ALTER TABLE rollouts ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;

-- What happened in each rollout, and when it began, for looking at it afterwards.
ALTER TABLE rollouts ADD COLUMN began_at TEXT;
ALTER TABLE rollouts ADD COLUMN steps TEXT NOT NULL DEFAULT '[]';

-- What a group says about its task stands with the group, so that a curriculum reads no rollouts.
-- A group may also end with a lost step or a rollback, and be there before its last member has ended.
CREATE TABLE groups_3 (
    number INTEGER PRIMARY KEY,
    task   TEXT NOT NULL,
    ending TEXT CHECK (ending IN
           ('trained', 'no_spread', 'no_gradient', 'failed', 'partial', 'no_tokens', 'stale', 'lost',
            'not_finite', 'rolled_back')),
    step   INTEGER,
    size   INTEGER NOT NULL CHECK (size >= 1),
    rewards TEXT NOT NULL DEFAULT '[]',
    rollback INTEGER REFERENCES rollbacks (id)
) STRICT;
INSERT INTO groups_3 (number, task, ending, step, size)
    SELECT number, task, ending, step,
           max(1, (SELECT count(*) FROM rollouts WHERE group_number = groups.number))
    FROM groups;
DROP TABLE groups;
ALTER TABLE groups_3 RENAME TO groups;
UPDATE groups SET rewards = (
    SELECT json_group_array(reward) FROM rollouts WHERE group_number = groups.number AND reward IS NOT NULL
);
CREATE INDEX groups_by_step ON groups (step);

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

-- A step that was given up says what it left in the tree; one that a run went back from stays in its store.
CREATE TABLE steps_3 (
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
INSERT INTO steps_3 (id, number, state, groups, digest, learning_rate, head_before, checkpoint, metrics, detail, planned_at, ended_at)
    SELECT id, number, state, groups, digest, learning_rate, head_before, checkpoint, metrics, detail, planned_at, ended_at FROM steps;
DROP TABLE steps;
ALTER TABLE steps_3 RENAME TO steps;
CREATE UNIQUE INDEX one_try_counts ON steps (number) WHERE state NOT IN ('abandoned', 'rolled_back');
CREATE UNIQUE INDEX one_step_per_checkpoint ON steps (checkpoint) WHERE state IN ('applied', 'rolled_back');

-- A call says what the service took.
ALTER TABLE calls ADD COLUMN num_datums INTEGER;

-- A version may be evaluated again once the run went back from it.
CREATE TABLE evaluations_3 (
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
INSERT INTO evaluations_3 (version, checkpoint, reward, graded, attempted, seconds, ended_at, tasks) SELECT version, checkpoint, reward, graded, attempted, seconds, ended_at, tasks FROM evaluations;
DROP TABLE evaluations;
ALTER TABLE evaluations_3 RENAME TO evaluations;
CREATE UNIQUE INDEX one_evaluation_per_version ON evaluations (version) WHERE rollback IS NULL;
