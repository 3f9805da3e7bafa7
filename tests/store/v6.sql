-- A store of the sixth version: that of the fifth, brought up to date.
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

INSERT INTO "calls" VALUES('c1',1,'forward_backward','2026-01-01','confirmed',NULL,NULL,'2026-01-01');
INSERT INTO "calls" VALUES('c2',1,'optim_step','2026-01-01','confirmed','node-1',NULL,'2026-01-01');
INSERT INTO "calls" VALUES('c3',2,'forward','2026-01-01','not_sent','refused',NULL,'2026-01-01');
INSERT INTO "calls" VALUES('c4',4,'forward_backward','2026-01-03','confirmed',NULL,NULL,'2026-01-03');
INSERT INTO "calls" VALUES('c5',4,'optim_step','2026-01-03',NULL,NULL,NULL,NULL);
INSERT INTO "evaluations" VALUES(1,0,NULL,0.25,4,4,1.5,'2026-01-01','{"add-1": 0.25}',NULL);
INSERT INTO "groups" VALUES(0,'{"env": "sums", "id": "add", "args": {"a": 1}, "slug": "add-1"}','trained',1,2,'[1.0,0.0]',NULL);
INSERT INTO "groups" VALUES(1,'{"env": "sums", "id": "add", "args": {"a": 2}, "slug": "add-2"}','no_spread',2,1,'[]',NULL);
INSERT INTO "groups" VALUES(2,'{"env": "sums", "id": "add", "args": {"a": 3}, "slug": "add-3"}',NULL,NULL,2,'[0.25,0.75]',NULL);
INSERT INTO "kept_rollouts" VALUES(0,0,'t0','finished',1.0,'{"score": 1.0}',1,0,0,0,'{"samples":[{"prompt_token_ids": [1], "output_token_ids": [2], "logprobs": [-0.5], "version": 0}],"steps":[{"source":"task","began":0.25,"ended":0.5}],"phases":{"act": 0.25},"phase":"teardown","seconds":0.5,"attempts":1,"answer":"x","detail":null,"began_at":1767323045.678}');
INSERT INTO "kept_rollouts" VALUES(0,1,'t1','finished',0.0,NULL,0,NULL,NULL,0,'{"samples":[],"steps":[],"phases":{},"phase":"teardown","seconds":0.5,"attempts":1,"answer":null,"detail":null}');
INSERT INTO "kept_rollouts" VALUES(1,0,'t2','environment_lost',NULL,NULL,0,NULL,NULL,0,'{"samples":[],"steps":[],"phases":{},"phase":"act","seconds":0.5,"attempts":2,"answer":null,"detail":"went away"}');
INSERT INTO "kept_rollouts" VALUES(2,0,'t3','finished',0.25,NULL,1,1,1,0,'{"samples":[{"prompt_token_ids": [1], "output_token_ids": [3], "logprobs": [-0.5], "version": 1}],"steps":[],"phases":{},"phase":"teardown","seconds":0.5,"attempts":1,"answer":null,"detail":null}');
INSERT INTO "kept_rollouts" VALUES(2,1,'t4','finished',0.75,NULL,1,1,1,0,'{"samples":[{"prompt_token_ids": [1], "output_token_ids": [4], "logprobs": [-0.5], "version": 1}],"steps":[],"phases":{},"phase":"teardown","seconds":0.5,"attempts":1,"answer":null,"detail":null}');
INSERT INTO "meta" VALUES('slug','quick');
INSERT INTO "meta" VALUES('first_head','');
INSERT INTO "sessions" VALUES(1,'2026-01-01','2026-01-02',12.5,130);
INSERT INTO "sessions" VALUES(2,'2026-01-03',NULL,NULL,NULL);
INSERT INTO "steps" VALUES(1,1,'applied','[0]','d1',0.1,NULL,'node-1','{"reward_mean": 0.5}',NULL,'[]','2026-01-01','2026-01-01',NULL);
INSERT INTO "steps" VALUES(2,2,'abandoned','[1]','d2',0.1,'node-1',NULL,'{}',NULL,'[]','2026-01-01','2026-01-01',NULL);
INSERT INTO "steps" VALUES(3,2,'skipped','[]','d3',0.1,'node-1',NULL,'{"reward_mean": 0.0}',NULL,'[]','2026-01-01','2026-01-01',NULL);
INSERT INTO "steps" VALUES(4,3,'planned','[2]','d4',0.1,'node-1',NULL,'{}',NULL,'[]','2026-01-03',NULL,NULL);
PRAGMA user_version = 6;
INSERT INTO meta VALUES ('unfenced', 'yes');

-- What must never be is refused here, whatever asks for it: a step's calls come while it is in hand, ...
CREATE TRIGGER a_call_is_of_a_step_in_hand BEFORE INSERT ON calls
WHEN (SELECT state FROM steps WHERE id = NEW.step) <> 'planned'
BEGIN
    SELECT RAISE(ABORT, 'a call of a step that is over');
END;

-- ... and none on top of one that was refused, or whose outcome is unknown: the fence.
CREATE TRIGGER no_call_passes_a_fence BEFORE INSERT ON calls
WHEN EXISTS (SELECT 1 FROM calls WHERE step = NEW.step AND (ending IS NULL OR ending = 'rejected'))
BEGIN
    SELECT RAISE(ABORT, 'a call on top of one that failed or whose outcome is unknown');
END;

-- A call ends once.
CREATE TRIGGER a_call_ends_once BEFORE UPDATE OF ending ON calls WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a call ends once');
END;

-- A step ends once, and only going back takes it out of the history.
CREATE TRIGGER a_step_ends_once BEFORE UPDATE OF state ON steps
WHEN OLD.state <> 'planned' AND NOT (OLD.state IN ('applied', 'skipped') AND NEW.state = 'rolled_back')
BEGIN
    SELECT RAISE(ABORT, 'a step ends once');
END;

-- A group ends once.
CREATE TRIGGER a_group_ends_once BEFORE UPDATE OF ending ON groups WHEN OLD.ending IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a group ends once');
END;
