-- Losses on the client's side: two more kinds of calls, and an ending for groups that such a loss silenced.
-- Rollouts say in which phase they ended, and how long each took; more ways to end have names.

CREATE TABLE calls_2 (
    id       TEXT PRIMARY KEY,
    step     INTEGER NOT NULL REFERENCES steps (id),
    kind     TEXT NOT NULL CHECK (kind IN ('forward_backward', 'forward', 'backward', 'optim_step')),
    sent_at  TEXT NOT NULL,
    ending   TEXT CHECK (ending IN ('confirmed', 'rejected', 'not_sent')),
    detail   TEXT,
    ended_at TEXT,
    CHECK ((ending IS NULL) = (ended_at IS NULL))
) STRICT;
INSERT INTO calls_2 SELECT * FROM calls;
DROP TABLE calls;
ALTER TABLE calls_2 RENAME TO calls;
CREATE UNIQUE INDEX one_optim_step ON calls (step)
    WHERE kind = 'optim_step' AND (ending IS NULL OR ending = 'confirmed');

CREATE TABLE groups_2 (
    number INTEGER PRIMARY KEY,
    task   TEXT NOT NULL,
    ending TEXT CHECK (ending IN
           ('trained', 'no_spread', 'no_gradient', 'failed', 'partial', 'no_tokens', 'stale')),
    step   INTEGER
) STRICT;
INSERT INTO groups_2 SELECT * FROM groups;
DROP TABLE groups;
ALTER TABLE groups_2 RENAME TO groups;

ALTER TABLE rollouts ADD COLUMN phase TEXT NOT NULL DEFAULT 'teardown';
ALTER TABLE rollouts ADD COLUMN phases TEXT NOT NULL DEFAULT '{}';
UPDATE rollouts SET outcome = 'environment_lost' WHERE outcome = 'environment_failed';
UPDATE rollouts SET outcome = 'gateway_refused' WHERE outcome = 'refused';
