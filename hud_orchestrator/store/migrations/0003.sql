-- Rollouts that were sampled elsewhere have no tokens here, and train by their trace id.

ALTER TABLE rollouts ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;

-- What happened in each rollout, and when it began, for looking at it afterwards.
ALTER TABLE rollouts ADD COLUMN began_at TEXT;
ALTER TABLE rollouts ADD COLUMN steps TEXT NOT NULL DEFAULT '[]';

-- What a group says about its task stands with the group, so that a curriculum reads no rollouts.
-- A group may also end with a lost step, and be there before its last member has ended.
CREATE TABLE groups_3 (
    number INTEGER PRIMARY KEY,
    task   TEXT NOT NULL,
    ending TEXT CHECK (ending IN
           ('trained', 'no_spread', 'no_gradient', 'failed', 'partial', 'no_tokens', 'stale', 'lost')),
    step   INTEGER,
    size   INTEGER NOT NULL CHECK (size >= 1),
    rewards TEXT NOT NULL DEFAULT '[]'
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

-- A step that was given up says what it left in the tree, and a call what the service took.
ALTER TABLE steps ADD COLUMN strays TEXT NOT NULL DEFAULT '[]';
ALTER TABLE calls ADD COLUMN num_datums INTEGER;
