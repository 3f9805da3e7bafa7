-- Rollouts that were sampled elsewhere have no tokens here, and train by their trace id.

ALTER TABLE rollouts ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;

-- What happened in each rollout, and when it began, for looking at it afterwards.
ALTER TABLE rollouts ADD COLUMN began_at TEXT;
ALTER TABLE rollouts ADD COLUMN steps TEXT NOT NULL DEFAULT '[]';
