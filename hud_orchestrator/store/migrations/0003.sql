-- Rollouts that were sampled elsewhere have no tokens here, and train by their trace id.

ALTER TABLE rollouts ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;

-- What happened in each rollout, and when it began, for looking at it afterwards.
ALTER TABLE rollouts ADD COLUMN began_at TEXT;
ALTER TABLE rollouts ADD COLUMN steps TEXT NOT NULL DEFAULT '[]';

-- What a group says about its task stands with the group, so that a curriculum reads no rollouts.
ALTER TABLE groups ADD COLUMN rewards TEXT NOT NULL DEFAULT '[]';
UPDATE groups SET rewards = (
    SELECT json_group_array(reward) FROM rollouts WHERE group_number = groups.number AND reward IS NOT NULL
);
CREATE INDEX groups_by_step ON groups (step);
